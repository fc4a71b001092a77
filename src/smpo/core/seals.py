"""Seals: the size and the SHA-256 of a file as it was written, and what is wrong with a file that differs from them."""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smpo.core.digests import THREADS, hash_file

Entry = list[int | str]
"""A seal in JSON: [bytes, sha256]."""
DAMAGED = "is damaged or was changed (its SHA-256 is not the one that was written)"


@dataclass(frozen=True)
class Seal:
    """Size of a file in bytes, and the SHA-256 of its content in hex."""

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> "Seal":
        """The seal of a file with this content."""
        return cls(len(content), hashlib.sha256(content).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> "Seal":
        """The seal of a file with its present content."""
        return cls(path.stat().st_size, hash_file(path))

    @classmethod
    def parse(cls, entry: Any) -> "Seal":
        """The seal of an `entry` in JSON; ValueError if it is none."""
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], int) and isinstance(entry[1], str):
            return cls(*entry)
        raise ValueError(f"expected [bytes, sha256], got {entry!r}")

    @property
    def entry(self) -> Entry:
        """The seal in JSON."""
        return [self.size, self.sha256]


Seals = Mapping[str, Seal]
"""Name below a folder, with "/" -> seal of the file."""


def seal_files(folder: Path, names: Iterable[str]) -> dict[str, Seal]:
    """Name -> seal of files of `folder`; several threads read them."""
    names = list(names)
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: Seal.of_file(folder / name), names), strict=True))


def size_complaint(path: Path, seal: Seal) -> str | None:
    """What is wrong with a file by its size alone: "is missing", "is cut off ..."; None if nothing is."""
    if not path.is_file():
        return "is missing"
    return None if path.stat().st_size == seal.size else _other_size(path.stat().st_size, seal)


def complaint(path: Path, seal: Seal) -> str | None:
    """What is wrong with a file, which is read; None if nothing is."""
    wrong = size_complaint(path, seal)
    return wrong if wrong is not None or hash_file(path) == seal.sha256 else DAMAGED


def read_sealed(path: Path, seal: Seal) -> tuple[bytes, str | None]:
    """The bytes of a file, and what is wrong with them; None if nothing is."""
    if not path.is_file():
        return b"", "is missing"
    content = path.read_bytes()
    if len(content) != seal.size:
        return content, _other_size(len(content), seal)
    return content, None if Seal.of(content) == seal else DAMAGED


def _other_size(size: int, seal: Seal) -> str:
    return f"is {'cut off' if size < seal.size else 'too long'} ({size} bytes, {seal.size} were written)"


def complaints(folder: Path, seals: Seals) -> dict[str, str]:
    """Name -> what is wrong, of the files that differ from their seals; several threads read them."""
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(lambda name: complaint(folder / name, seals[name]), seals)
        return {name: wrong for name, wrong in zip(seals, results, strict=True) if wrong is not None}
