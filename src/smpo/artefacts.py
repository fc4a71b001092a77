"""Artefacts: the folders that stages write. Each carries the settings and input fingerprints that it was made from.

A stage calls `begin` (is there work, and may this folder be used?) and `finish`. Between the two the manifest says
`"complete": false`, so no later stage mistakes half an artefact for a whole one.
"""

import enum
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smpo.errors import DataError, StaleError

MANIFEST = "manifest.json"
POLL_S = 1.0
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class Status(enum.Enum):
    """What a stage finds in its folder."""

    FRESH = "fresh"      # nothing there yet
    PARTIAL = "partial"  # the same work was begun and not finished: carry on
    DONE = "done"        # the same work is complete: nothing to do


@contextmanager
def turn_at(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until no other process has its turn at `folder`; the kernel ends the turn of a process that is killed.

    `waiting` is called every second. Where the file system has no locks, everybody has a turn at once.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as file:
        while not _locked(file.fileno()):
            waiting()
            time.sleep(POLL_S)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in WITHOUT_LOCKS
    return True


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


def hash_file(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex; read in pieces, so any size works."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """SHA-256, in hex, of a JSON-serialisable value with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def begin(folder: Path, *, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Status:
    """The state of `folder` for this work; writes the manifest of unfinished work when it is fresh.

    Args:
        folder: where the artefact lives.
        stage: name of the verb that makes it.
        settings: the resolved settings that determine the result (nothing that only changes speed or logging).
        inputs: name -> fingerprint of each input (see `fingerprint_of`).

    Raises:
        StaleError: the folder holds an artefact of other settings or other inputs.
    """
    wanted = json.loads(json.dumps({"stage": stage, "settings": settings, "inputs": dict(inputs)}, default=str))
    path = folder / MANIFEST
    if not path.exists():
        if folder.exists() and any(".tmp-" not in path.name for path in folder.iterdir()):
            raise StaleError(f"{folder} holds files but no {MANIFEST}; delete the folder or choose another path")
        _write_manifest(folder, {**wanted, "fingerprint": fingerprint(wanted), "complete": False, "results": {}})
        return Status.FRESH
    found = _load(path)
    if found.get("fingerprint") != fingerprint(wanted):
        changes = _difference(found, wanted)
        raise StaleError(f"{folder} was made with {changes}; delete the folder or choose another path")
    return Status.DONE if found["complete"] else Status.PARTIAL


def finish(folder: Path, results: Mapping[str, Any], *, notes: Mapping[str, Any] | None = None) -> None:
    """Mark the artefact complete and store `results`, its counts and measured values, which later stages depend on.

    `notes` are facts that no later stage depends on, such as the versions and the device that made it.

    What killed writes have left in the folder is deleted first: nobody writes there any more.
    """
    found = _load(folder / MANIFEST)
    for leftover in folder.glob("*.tmp-*"):
        leftover.unlink()
    _write_manifest(folder, {**found, "complete": True, "results": dict(results), "notes": dict(notes or {})})


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
    found = read_manifest(folder, stage=stage)
    return fingerprint([found["fingerprint"], found["results"]])


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:  # not JSON, or not UTF-8
        raise DataError(f"{path} is not valid JSON ({error}); delete the folder and run the stage again") from error
    if not (isinstance(found, dict) and {"stage", "fingerprint", "complete", "results"} <= set(found)):
        raise DataError(f"{path} is no manifest of this toolkit; delete the folder or choose another path")
    return found


def _write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    write_atomically(folder / MANIFEST, json.dumps(content, indent=1, default=str) + "\n")


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first settings that differ, as "key=old (now new)"."""
    old, new = _flat(found), _flat(wanted)
    keys = [  # by repr: JSON tells 1 from true and an absent key from null, == and .get do not
        key for key in sorted({*old, *new}) if (key in old, repr(old.get(key))) != (key in new, repr(new.get(key)))
    ]
    changed = [f"{key}={old.get(key)!r} (now {new.get(key)!r})" for key in keys]
    return ", ".join(changed[:3]) + (f" and {len(changed) - 3} more differences" if len(changed) > 3 else "")


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
    walk("input", {name: digest[:12] for name, digest in manifest.get("inputs", {}).items()})
    return flat
