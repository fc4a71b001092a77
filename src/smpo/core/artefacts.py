"""Artefacts: the folders that stages write. The manifest of each holds its settings and the fingerprints of its inputs.

A stage calls `begin`, which says whether there is work and whether the folder may be used, and at the end `finish`.
Between the two the manifest says `"complete": false`, so no later stage reads an unfinished artefact.

`finish` seals the artefact: the manifest then holds the size and the SHA-256 of every file, and a digest of itself.
`Artefact` compares each file with its seal whenever it reads the file, and refuses a file that was changed.
"""

import enum
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from smpo.core.digests import hash_file
from smpo.core.errors import DataError, StaleError
from smpo.core.seals import Entry, Seal, Seals, complaint, complaints, read_sealed, seal_files, size_complaint

MANIFEST = "manifest.json"
JOURNALS = "parts-*.jsonl"  # written by `smpo.core.parts` while an artefact is made
LISTED_APART = 64  # an artefact with more files lists them in a separate file, so that the manifest stays readable
AGAIN = "delete this file and run `smpo {verb}` again"
KEYS = {"stage", "settings", "inputs", "fingerprint", "complete", "results"}

__all__ = [
    "JOURNALS", "MANIFEST", "Artefact", "Status", "begin", "fingerprint", "fingerprint_of", "finish", "hash_file",
    "is_complete", "is_finished", "read_manifest", "reopen", "reseal", "sealed_files", "stage_of",
    "sync_folder", "write_atomically",
]


class Status(enum.Enum):
    """What a stage finds in its folder."""

    FRESH = "fresh"      # nothing is there yet
    PARTIAL = "partial"  # the same work was begun and is unfinished, or files are missing: continue it
    DONE = "done"        # the same work is complete: nothing is left to do


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`; after a crash at any moment `path` holds all of the old content or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + f".tmp-{os.getpid()}")
    with open(aside, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write the renames inside `folder` to the disk, so that a power failure does not undo them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(content: Any) -> str:
    """SHA-256, in hex, of a JSON-serialisable value with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Artefact:
    """A complete artefact. Each of its files is checked when it is read.

    Attributes:
        folder: its folder.
        manifest: the content of `manifest.json`, as `finish` wrote it.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path | str, *, stage: str) -> "Artefact":
        """The artefact of `stage` in `folder`; without one, DataError names the command that makes it."""
        return cls(Path(folder), read_manifest(Path(folder), stage=stage))

    @property
    def results(self) -> Mapping[str, Any]:
        """The counts and measured values of the stage."""
        return self.manifest["results"]

    @property
    def fingerprint(self) -> str:
        """Digest of settings, inputs and results; later stages record it as the fingerprint of this input."""
        return fingerprint([self.manifest["fingerprint"], self.manifest["results"]])

    @cached_property
    def seals(self) -> dict[str, Seal]:
        """Name -> seal of every file."""
        return _listed(self.folder, self.manifest)

    def read(self, name: str) -> bytes:
        """The bytes of a file; DataError if the file has changed since it was sealed."""
        content, wrong = read_sealed(self.folder / name, self.seal(name))
        self._refuse(name, wrong)
        return content

    def file(self, name: str, *, way_out: str | None = None) -> Path:
        """The path of a file, after reading it once to check it; DataError if it has changed since it was sealed.

        `way_out` replaces the advice in the message: to delete the file and to run the stage again.
        """
        self._refuse(name, complaint(self.folder / name, self.seal(name)), way_out)
        return self.folder / name

    def check(self, within: str = "", *, verb: str | None = None) -> None:
        """Read all files whose names begin with `within`; DataError if one has changed since it was sealed.

        `verb` is the command that makes the artefact, if that is not the name of its stage.
        """
        again = None if verb is None else AGAIN.format(verb=verb)
        seals = {name: seal for name, seal in self.seals.items() if name.startswith(within)}
        for name, wrong in complaints(self.folder, seals).items():
            self._refuse(name, wrong, again)

    def seal(self, name: str) -> Seal:
        """The seal of a file; DataError if the artefact has no such file."""
        if name not in self.seals:
            raise DataError(f"{self.folder} has no {name}; delete the folder and run `smpo {self.manifest['stage']}`")
        return self.seals[name]

    def _refuse(self, name: str, wrong: str | None, way_out: str | None = None) -> None:
        if wrong is not None:
            again = AGAIN.format(verb=self.manifest["stage"])
            raise DataError(f"{self.folder / name} {wrong}; {way_out or again}")


def begin(folder: Path, *, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Status:
    """The state of `folder` for this work. If nothing is there, writes the manifest of unfinished work.

    A complete artefact with a file that is missing or has another size is PARTIAL, with a warning: a user can delete a
    damaged file and run the stage again to get the file back.

    Args:
        folder: of the artefact.
        stage: name of the command that makes it.
        settings: the resolved settings that determine the result (none that only change speed or logging).
        inputs: name -> fingerprint of each input (see `fingerprint_of`).

    Raises:
        StaleError: the folder holds an artefact of other settings or other inputs.
        DataError: the manifest is damaged, or was written by another version of this toolkit.
    """
    work = json.loads(json.dumps({"stage": stage, "settings": settings, "inputs": dict(inputs)}, default=str))
    if stage_of(folder) is None:
        _write_manifest(folder, {**work, "fingerprint": fingerprint(work), "complete": False, "results": {}})
        return Status.FRESH
    manifest = _load(folder / MANIFEST)
    if manifest["fingerprint"] != fingerprint(work):
        changes = _difference(manifest, work)
        raise StaleError(f"{folder} was made with {changes}; delete the folder or choose another path")
    if not manifest["complete"]:
        return Status.PARTIAL
    sizes = {name: size_complaint(folder / name, seal) for name, seal in _listed(folder, manifest).items()}
    lacking = [f"{folder / name} {wrong}" for name, wrong in sizes.items() if wrong is not None]
    if not lacking:
        return Status.DONE
    more = f" (and {len(lacking) - 1} more files)" if len(lacking) > 1 else ""
    warnings.warn(f"{lacking[0]}{more}; it is made again", stacklevel=2)
    return Status.PARTIAL


def stage_of(folder: Path) -> str | None:
    """Name of the stage whose artefact, finished or not, lies in `folder`; None if nothing has been made yet.

    Raises:
        StaleError: the folder holds other files.
        DataError: the manifest is damaged, or was written by another version of this toolkit.
    """
    path = folder / MANIFEST
    if path.exists():
        return _load(path)["stage"]
    if folder.exists() and any(not _is_temporary(path) for path in folder.iterdir()):
        raise StaleError(f"{folder} holds files but no {MANIFEST}; delete the folder or choose another path")
    return None


def finish(
    folder: Path, results: Mapping[str, Any], *, files: Iterable[str] = (), sealed: Seals | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Mark the artefact complete and seal it.

    Files that killed writes left in the folder are deleted.

    Args:
        folder: of the artefact.
        results: its counts and measured values; later stages depend on them.
        files: names of its files, relative to the folder; they are read to be sealed.
        sealed: files whose seals are known since they were written.
        notes: facts on which no later stage depends, such as versions and the device.
    """
    manifest = _load(folder / MANIFEST)
    for leftover in folder.glob("*.tmp-*"):
        leftover.unlink()
    seals = {**(sealed or {}), **seal_files(folder, files)}
    entries = _entries(seals)
    about: dict[str, Any] = {"files": entries}
    if len(entries) > LISTED_APART:
        content = json.dumps(entries, indent=0).encode()
        listing = f"files-{Seal.of(content).sha256[:12]}.json"  # beside an older one until the manifest names it
        write_atomically(folder / listing, content)
        about = {"files_listed_in": {listing: Seal.of(content).entry}}
    kept = {key: manifest[key] for key in ("stage", "settings", "inputs", "fingerprint")}
    _write_manifest(
        folder, {**kept, "complete": True, "results": dict(results), **about, "notes": dict(notes or {})}
    )
    outdated = [path for path in folder.glob("files-*.json") if path.name not in about.get("files_listed_in", {})]
    for path in (*outdated, *folder.glob(JOURNALS)):
        path.unlink()


def reseal(folder: Path, files: Iterable[str]) -> None:
    """Seal some files of a complete artefact again; no later stage may depend on their content."""
    manifest = _load(folder / MANIFEST)
    _write_manifest(folder, {**manifest, "files": {**manifest["files"], **_entries(seal_files(folder, files))}})


def reopen(folder: Path) -> None:
    """Mark a complete artefact as unfinished, so that its stage can add to it."""
    _write_manifest(folder, {**_load(folder / MANIFEST), "complete": False})


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds a manifest that says "complete"; DataError if the manifest is damaged."""
    return (folder / MANIFEST).exists() and _load(folder / MANIFEST)["complete"]


def sealed_files(folder: Path) -> dict[str, Seal]:
    """Name -> seal of every file of the artefact in `folder`; empty if there is none or it is unfinished."""
    return _listed(folder, _load(folder / MANIFEST)) if (folder / MANIFEST).exists() else {}


def read_manifest(folder: Path, *, stage: str) -> dict[str, Any]:
    """The manifest of a complete artefact of `stage`; without one, DataError names the command to run."""
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(f"{folder} holds no {stage} artefact; run `smpo {stage}` first, or correct the path")
    manifest = _load(path)
    if manifest["stage"] != stage:
        raise DataError(
            f"{folder} is an artefact of `smpo {manifest['stage']}`, expected `smpo {stage}`; correct the path"
        )
    if not manifest["complete"]:
        raise DataError(f"{folder} is unfinished; run `smpo {stage}` again to complete it")
    return manifest


def is_finished(folder: Path, *, stage: str) -> bool:
    """Whether `folder` holds a complete artefact of `stage`."""
    try:
        read_manifest(folder, stage=stage)
    except DataError:
        return False
    return True


def fingerprint_of(folder: Path, *, stage: str) -> str:
    """The fingerprint of a complete artefact of `stage`; later stages record it as the fingerprint of this input."""
    return Artefact.open(folder, stage=stage).fingerprint


def _is_temporary(path: Path) -> bool:
    """Whether a file is a lock or was left behind by a killed write: such files do not make a folder an artefact."""
    return ".tmp-" in path.name or path.name == ".lock"


def _load(path: Path) -> dict[str, Any]:
    """The manifest, after checking that its bytes are those that were written."""
    content = path.read_bytes()
    try:
        manifest = json.loads(content.decode())
    except ValueError as error:  # not JSON, or not UTF-8
        raise DataError(f"{path} is not valid JSON ({error}); delete the folder and run the stage again") from error
    if not (isinstance(manifest, dict) and manifest.keys() >= KEYS):
        raise DataError(f"{path} is no manifest of this toolkit; delete the folder or choose another path")
    again = f"delete {path.parent} and run `smpo {manifest['stage']}` again"
    if "seal" not in manifest:
        raise DataError(f"{path} was made by an older version of smpo; {again}")
    if content != _rendered(manifest):
        raise DataError(f"{path} is damaged or was edited (it is not what was written); {again}")
    return manifest


def _rendered(content: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest; its last entry, "seal", is the digest of all others."""
    others = json.loads(json.dumps({key: value for key, value in content.items() if key != "seal"}, default=str))
    return (json.dumps({**others, "seal": fingerprint(others)}, indent=1) + "\n").encode()


def _write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    write_atomically(folder / MANIFEST, _rendered(content))


def _entries(seals: Seals) -> dict[str, Entry]:
    return {name: seals[name].entry for name in sorted(seals)}


def _listed(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Seal]:
    """Name -> seal of an artefact's files, from the manifest or from the separate file that lists them."""
    entries = manifest.get("files", {})
    for name, entry in manifest.get("files_listed_in", {}).items():
        path = folder / name
        wrong = complaint(path, Seal.parse(entry))
        if wrong is not None:
            raise DataError(f"{path} {wrong}; delete {folder} and run `smpo {manifest['stage']}` again")
        entries = json.loads(path.read_bytes())
    return {name: Seal.parse(entry) for name, entry in entries.items()}


def _difference(manifest: Mapping[str, Any], work: Mapping[str, Any]) -> str:
    """The first settings and inputs that differ, as "key=old (now new)"; never empty."""
    old, new = (  # as texts: 1 and true differ in JSON, but not for ==
        {key: repr(value) for key, value in _flat(content).items()} for content in (manifest, work)
    )
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if not keys:  # the same texts, nested differently
        return f"settings {fingerprint(manifest['settings'])[:12]} (now {fingerprint(work['settings'])[:12]})"
    changes = [_change(key, old.get(key, "absent"), new.get(key, "absent")) for key in keys[:3]]
    return ", ".join(changes) + (f" and {len(keys) - 3} more differences" if len(keys) > 3 else "")


def _change(key: str, old: str, new: str) -> str:
    """"key=old (now new)"; digests are cut to 12 digits, if these differ."""
    if key.startswith("input.") and old[:13] != new[:13]:
        old, new = (f"{text[:13]}'" if len(text) > 14 else text for text in (old, new))
    return f"{key}={old} (now {new})"


def _flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Stage, settings and inputs; nested keys are joined by dots."""
    flat: dict[str, Any] = {"stage": manifest.get("stage")}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and (value or not prefix):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        else:
            flat[prefix] = value

    walk("", manifest.get("settings", {}))
    walk("input", manifest.get("inputs", {}))
    return flat
