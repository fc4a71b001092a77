"""The files of an artefact while it is made, here called parts. A killed run keeps all that it has finished.

Each process has a journal in the folder, which lists the parts that it wrote. A part counts only if a journal lists it
and its bytes are unchanged; so no damaged and no foreign file gets into an artefact. `finish` takes the seals from the
journals, so the parts need not be read again.
"""

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smpo.core.artefacts import JOURNALS, Artefact, sealed_files, write_atomically
from smpo.core.processes import this_process
from smpo.core.seals import Seal, complaints, size_complaint

BLOCK = re.compile(r"-\d{5}\.npy$")


@dataclass
class Parts:
    """The intact parts in a folder.

    Attributes:
        folder: of the artefact.
        seals: name -> seal of each intact part.
        lost: names of parts that were written, and have changed since or are missing.
    """

    folder: Path
    seals: dict[str, Seal]
    lost: frozenset[str] = frozenset()

    @classmethod
    def open(cls, folder: Path, *, compare: bool = True) -> "Parts":
        """The parts in `folder`; those that have changed are deleted, with a warning.

        If several processes work together, the main one must call this first: it compares the bytes and the others only
        the sizes. Without `compare` no process compares bytes.
        """
        listed = _listed(folder)
        if compare and this_process().is_main:
            wrong = complaints(folder, listed)
            for name, complaint in wrong.items():
                if (folder / name).exists():
                    warnings.warn(f"{folder / name} {complaint}; it is made again", stacklevel=2)
                    (folder / name).unlink()
        there = {name: seal for name, seal in listed.items() if size_complaint(folder / name, seal) is None}
        return cls(folder, there, frozenset(listed.keys() - there.keys()))

    def __contains__(self, name: str) -> bool:
        return name in self.seals

    def write(self, name: str, content: bytes) -> None:
        """Write a part, whole or not at all, and list it in this process's journal."""
        write_atomically(self.folder / name, content)
        self.seals[name] = Seal.of(content)
        line = json.dumps({"file": name, "seal": self.seals[name].entry}) + "\n"
        with open(self.folder / f"parts-{this_process().rank:05d}.jsonl", "a") as journal:
            journal.write(line)

    @property
    def unsealed(self) -> bool:
        """Whether parts were written that are not yet in the artefact's manifest."""
        return any(self.folder.glob(JOURNALS))

    def of_all(self) -> dict[str, Seal]:
        """Name -> seal of the parts of all processes; to be called when every process has written its own."""
        seals = {**self.seals, **_listed(self.folder)}
        return {name: seal for name, seal in seals.items() if size_complaint(self.folder / name, seal) is None}


def _listed(folder: Path) -> dict[str, Seal]:
    """Name -> seal of the parts in the manifest and in the journals; a journal's last line may have been cut off."""
    listed = sealed_files(folder)
    for journal in sorted(folder.glob(JOURNALS)):
        for line in journal.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
                listed[entry["file"]] = Seal.parse(entry["seal"])
            except (ValueError, KeyError, TypeError):
                continue
    return listed


class SealedBlocks(Sequence[np.ndarray]):
    """The arrays NAME-00000.npy, NAME-00001.npy, ... of an artefact, memory-mapped and checked at their first use.

    The check reads a block once. Forked processes share the list of checked blocks, so of all workers of a data loader
    only one checks a block.
    """

    def __init__(self, artefact: Artefact, name: str) -> None:
        """Find the blocks; `name` may begin with a folder of the artefact."""
        self._artefact = artefact
        self._names = sorted(file for file in artefact.seals if BLOCK.sub("", file) == name)
        self._checked = torch.zeros(len(self._names), dtype=torch.bool).share_memory_()
        self._mapped: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """The state without the maps: a process that is not forked maps the files itself."""
        return {**self.__dict__, "_mapped": {}}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: Any) -> Any:
        """The array of a block; DataError if its file has changed since it was sealed."""
        if number not in self._mapped:
            name = self._names[number]
            path = self._artefact.folder / name if self._checked[number] else self._artefact.file(name)
            self._mapped[number] = np.load(path, mmap_mode="r")
            self._checked[number] = True
        return self._mapped[number]
