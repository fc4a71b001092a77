"""Artefacts: the folders that stages write. Each carries the settings and input fingerprints that it was made from.

A stage calls `begin` (is there work, and may this folder be used?) and `finish`. Between the two the manifest says
`"complete": false`, so no later stage mistakes half an artefact for a whole one.

`finish` seals the artefact: the manifest names every file with its size and SHA-256, and carries a digest of itself.
`Artefact` reads it: each file is compared with its seal whenever it is read, so what was damaged, cut, exchanged or
edited is named and never used.
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
from smpo.core.seals import Seal, Seals, complaint, complaints, read_sealed, seal_files, size_complaint

MANIFEST = "manifest.json"
JOURNALS = "parts-*.jsonl"  # of `smpo.core.parts`, while an artefact is made
LISTED_APART = 64  # an artefact of more files lists them in a file of its own, so that people can read the manifest
AGAIN = "delete this file and run `smpo {verb}` again"
KEYS = {"stage", "settings", "inputs", "fingerprint", "complete", "results"}

__all__ = [
    "JOURNALS", "MANIFEST", "Artefact", "Status", "begin", "fingerprint", "fingerprint_of", "finish", "hash_file",
    "is_complete", "is_finished", "read_manifest", "reopen", "reseal", "sealed_files", "stage_of",
    "sync_folder", "write_atomically",
]


class Status(enum.Enum):
    """What a stage finds in its folder."""

    FRESH = "fresh"      # nothing there yet
    PARTIAL = "partial"  # the same work was begun and not finished, or lacks files: carry on
    DONE = "done"        # the same work is complete: nothing to do


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` so that after a crash at any moment `path` holds the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + f".tmp-{os.getpid()}")
    with open(aside, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
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
    """A complete artefact, its files checked when they are read.

    Attributes:
        folder: where it lies.
        manifest: as `finish` wrote it.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path | str, *, stage: str) -> "Artefact":
        """The artefact of `stage` in `folder`; DataError says which verb to run when there is none."""
        return cls(Path(folder), read_manifest(Path(folder), stage=stage))

    @property
    def results(self) -> Mapping[str, Any]:
        """What the stage counted and measured."""
        return self.manifest["results"]

    @property
    def fingerprint(self) -> str:
        """What a later stage records as its input: of settings, inputs and measured results."""
        return fingerprint([self.manifest["fingerprint"], self.manifest["results"]])

    @cached_property
    def seals(self) -> dict[str, Seal]:
        """Name -> seal of every file."""
        return _listed(self.folder, self.manifest)

    def read(self, name: str) -> bytes:
        """The bytes of a file; DataError when they are not those that were written."""
        content, wrong = read_sealed(self.folder / name, self.seal(name))
        self._refuse(name, wrong)
        return content

    def file(self, name: str, *, way_out: str | None = None) -> Path:
        """The path of a file, which is read once to be checked; DataError when it is not what was written.

        `way_out` is what to do then, where it is not to delete the file and to run the stage again.
        """
        self._refuse(name, complaint(self.folder / name, self.seal(name)), way_out)
        return self.folder / name

    def check(self, within: str = "", *, verb: str | None = None) -> None:
        """DataError unless all files whose names begin with `within` are what was written; they are all read.

        `verb` makes the artefact, where that is not the verb of its stage.
        """
        again = None if verb is None else AGAIN.format(verb=verb)
        seals = {name: seal for name, seal in self.seals.items() if name.startswith(within)}
        for name, wrong in complaints(self.folder, seals).items():
            self._refuse(name, wrong, again)

    def seal(self, name: str) -> Seal:
        """The seal of a file; DataError when the artefact has no such file."""
        if name not in self.seals:
            raise DataError(f"{self.folder} has no {name}; delete the folder and run `smpo {self.manifest['stage']}`")
        return self.seals[name]

    def _refuse(self, name: str, wrong: str | None, way_out: str | None = None) -> None:
        if wrong is not None:
            again = AGAIN.format(verb=self.manifest["stage"])
            raise DataError(f"{self.folder / name} {wrong}; {way_out or again}")


def begin(folder: Path, *, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Status:
    """The state of `folder` for this work; writes the manifest of unfinished work when it is fresh.

    A complete artefact of which a file is missing or has another size is PARTIAL, with a warning: so whoever deletes a
    damaged file and calls the stage again gets that file back.

    Args:
        folder: where the artefact lives.
        stage: name of the verb that makes it.
        settings: the resolved settings that determine the result (nothing that only changes speed or logging).
        inputs: name -> fingerprint of each input (see `fingerprint_of`).

    Raises:
        StaleError: the folder holds an artefact of other settings or other inputs.
        DataError: the manifest is damaged, or of another version of this toolkit.
    """
    wanted = json.loads(json.dumps({"stage": stage, "settings": settings, "inputs": dict(inputs)}, default=str))
    path = folder / MANIFEST
    if stage_of(folder) is None:
        _write_manifest(folder, {**wanted, "fingerprint": fingerprint(wanted), "complete": False, "results": {}})
        return Status.FRESH
    found = _load(path)
    if found["fingerprint"] != fingerprint(wanted):
        changes = _difference(found, wanted)
        raise StaleError(f"{folder} was made with {changes}; delete the folder or choose another path")
    if not found["complete"]:
        return Status.PARTIAL
    sizes = {name: size_complaint(folder / name, seal) for name, seal in _listed(folder, found).items()}
    lacking = [f"{folder / name} {wrong}" for name, wrong in sizes.items() if wrong is not None]
    if not lacking:
        return Status.DONE
    more = f" (and {len(lacking) - 1} more files)" if len(lacking) > 1 else ""
    warnings.warn(f"{lacking[0]}{more}; it is made again", stacklevel=2)
    return Status.PARTIAL


def stage_of(folder: Path) -> str | None:
    """The stage whose artefact, finished or not, `folder` holds; None where nothing has been made yet.

    Raises:
        StaleError: the folder holds something else.
        DataError: the manifest is damaged, or of another version of this toolkit.
    """
    path = folder / MANIFEST
    if path.exists():
        return _load(path)["stage"]
    if folder.exists() and any(not _is_passing(path) for path in folder.iterdir()):
        raise StaleError(f"{folder} holds files but no {MANIFEST}; delete the folder or choose another path")
    return None


def finish(
    folder: Path, results: Mapping[str, Any], *, files: Iterable[str] = (), sealed: Seals | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Mark the artefact complete and seal it.

    What killed writes have left in the folder is deleted first: nobody writes there any more.

    Args:
        folder: of the artefact.
        results: its counts and measured values, which later stages depend on.
        files: names, below the folder, of its files; they are read to be sealed.
        sealed: files whose seals are known from when they were written.
        notes: facts that no later stage depends on, such as the versions and the device that made it.
    """
    found = _load(folder / MANIFEST)
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
    kept = {key: found[key] for key in ("stage", "settings", "inputs", "fingerprint")}
    _write_manifest(
        folder, {**kept, "complete": True, "results": dict(results), **about, "notes": dict(notes or {})}
    )
    outdated = [path for path in folder.glob("files-*.json") if path.name not in about.get("files_listed_in", {})]
    for path in (*outdated, *folder.glob(JOURNALS)):
        path.unlink()


def reseal(folder: Path, files: Iterable[str]) -> None:
    """Seal some files of a complete artefact anew: facts about it that no later stage depends on."""
    found = _load(folder / MANIFEST)
    _write_manifest(folder, {**found, "files": {**found["files"], **_entries(seal_files(folder, files))}})


def reopen(folder: Path) -> None:
    """Mark a complete artefact as unfinished, for a stage that makes more of it."""
    _write_manifest(folder, {**_load(folder / MANIFEST), "complete": False})


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds a manifest that says so; DataError when the manifest is damaged."""
    return (folder / MANIFEST).exists() and _load(folder / MANIFEST)["complete"]


def sealed_files(folder: Path) -> dict[str, Seal]:
    """Name -> seal of every file of the artefact in `folder`; where it is unfinished, or none, nothing is sealed."""
    return _listed(folder, _load(folder / MANIFEST)) if (folder / MANIFEST).exists() else {}


def read_manifest(folder: Path, *, stage: str) -> dict[str, Any]:
    """The manifest of a complete artefact of `stage`; DataError says which verb to run when there is none."""
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(f"{folder} holds no {stage} artefact; run `smpo {stage}` first, or correct the path")
    found = _load(path)
    if found.get("stage") != stage:
        made_by = found.get("stage")
        raise DataError(f"{folder} is an artefact of `smpo {made_by}`, expected `smpo {stage}`; correct the path")
    if not found["complete"]:
        raise DataError(f"{folder} is unfinished; run `smpo {stage}` again to complete it")
    return found


def is_finished(folder: Path, *, stage: str) -> bool:
    """Whether `folder` holds a complete artefact of `stage`."""
    try:
        read_manifest(folder, stage=stage)
    except DataError:
        return False
    return True


def fingerprint_of(folder: Path, *, stage: str) -> str:
    """The fingerprint of a complete artefact, including its measured results: what a later stage records as input."""
    return Artefact.open(folder, stage=stage).fingerprint


def _is_passing(path: Path) -> bool:
    """Whether a file may lie in a folder that nothing has been made in: a killed write's, or a lock."""
    return ".tmp-" in path.name or path.name == ".lock"


def _load(path: Path) -> dict[str, Any]:
    """The manifest, whole and as it was written, to the byte."""
    content = path.read_bytes()
    try:
        found = json.loads(content.decode())
    except ValueError as error:  # not JSON, or not UTF-8
        raise DataError(f"{path} is not valid JSON ({error}); delete the folder and run the stage again") from error
    if not (isinstance(found, dict) and found.keys() >= KEYS):
        raise DataError(f"{path} is no manifest of this toolkit; delete the folder or choose another path")
    again = f"delete {path.parent} and run `smpo {found['stage']}` again"
    if "seal" not in found:
        raise DataError(f"{path} was made by an older version of smpo; {again}")
    if content != _rendered({key: value for key, value in found.items() if key != "seal"}):
        raise DataError(f"{path} is damaged or was edited (it is not what was written); {again}")
    return found


def _rendered(content: Mapping[str, Any]) -> bytes:
    """The manifest's bytes, with a digest of all the rest as their last entry."""
    plain = json.loads(json.dumps(content, default=str))
    return (json.dumps({**plain, "seal": fingerprint(plain)}, indent=1) + "\n").encode()


def _write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    rest = {key: value for key, value in content.items() if key != "seal"}
    write_atomically(folder / MANIFEST, _rendered(rest))


def _entries(seals: Seals) -> dict[str, list]:
    return {name: seals[name].entry for name in sorted(seals)}


def _listed(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Seal]:
    """The seals of a complete artefact's files, from its manifest or from the file that lists them."""
    entries = manifest.get("files", {})
    for name, entry in manifest.get("files_listed_in", {}).items():
        path = folder / name
        wrong = complaint(path, Seal.parse(entry))
        if wrong is not None:
            raise DataError(f"{path} {wrong}; delete {folder} and run `smpo {manifest['stage']}` again")
        entries = json.loads(path.read_bytes())
    return {name: Seal.parse(entry) for name, entry in entries.items()}


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first settings and inputs that differ, as "key=old (now new)"; never empty."""
    old, new = _flat(found), _flat(wanted)
    keys = [  # by repr: JSON tells 1 from true and an absent key from null, == and .get do not
        key for key in sorted({*old, *new}) if (key in old, repr(old.get(key))) != (key in new, repr(new.get(key)))
    ]
    if not keys:  # the same texts, nested otherwise
        return f"settings {fingerprint(found['settings'])[:12]} (now {fingerprint(wanted['settings'])[:12]})"
    changed = [f"{key}={old_text} (now {new_text})" for key in keys[:3]
               for old_text, new_text in [_told_apart(old.get(key), new.get(key), key)]]
    return ", ".join(changed) + (f" and {len(keys) - 3} more differences" if len(keys) > 3 else "")


def _told_apart(old: Any, new: Any, key: str) -> tuple[str, str]:
    """Both values as text; of digests the first 12 digits, where these differ."""
    if key.startswith("input.") and isinstance(old, str) and isinstance(new, str) and old[:12] != new[:12]:
        old, new = old[:12], new[:12]
    return repr(old), repr(new)


def _flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that decide staleness, nested ones joined by dots."""
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
