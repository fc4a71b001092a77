"""Cheap digests of source files, and the reading of one image file."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from smpo.artefacts import fingerprint

PEEK_BYTES = 64 * 1024


def fingerprint_files(files: Iterable[Path], *, root: Path, peek: bool = True) -> str:
    """Digest of the names below `root`, sizes, times and (where `peek`) the first and last 64 KiB of `files`.

    It reads at most 128 KiB of a file, so 335 GB in 645 shards cost 80 MB of reading. The modification time is left
    out where the two ends are the whole file, so that copying small files changes nothing.
    """
    return fingerprint([_describe(file, root, peek) for file in files])


def _describe(file: Path, root: Path, peek: bool) -> list:
    name = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
    if not file.is_file():
        return [name, "missing"]
    state = file.stat()
    if not peek:
        return [name, state.st_size, state.st_mtime_ns]
    whole = state.st_size <= 2 * PEEK_BYTES
    return [name, state.st_size, None if whole else state.st_mtime_ns, _hash_ends(file, state.st_size)]


def _hash_ends(file: Path, size: int) -> str:
    with open(file, "rb") as stream:
        digest = hashlib.sha256(stream.read(PEEK_BYTES))
        stream.seek(max(PEEK_BYTES, size - PEEK_BYTES))
        digest.update(stream.read(PEEK_BYTES))
    return digest.hexdigest()
