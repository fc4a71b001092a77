"""The parts of an artefact while it is made: many files, each written whole, of which a killed run loses none.

Beside them a journal a process says what was written. A part counts only if the journal names it and its bytes are
those that were written, so neither a damaged nor a foreign file ends up in an artefact. `finish` seals the parts with
what the journal knows; they need not be read again.
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
    """The parts that lie in a folder, intact.

    Attributes:
        folder: of the artefact.
        seals: name -> seal of what is there.
        lost: names of parts that were written once and are no longer what they were.
    """

    folder: Path
    seals: dict[str, Seal]
    lost: frozenset[str] = frozenset()

    @classmethod
    def open(cls, folder: Path, *, compare: bool = True) -> "Parts":
        """The parts in `folder`; those that were changed are deleted, with a warning.

        Of processes that work together the main one, which is to call this first, compares the bytes; the others, and
        whoever does not `compare`, look at the sizes.
        """
        noted = _noted(folder)
        if compare and this_process().is_main:
            wrong = complaints(folder, noted)
            for name, complaint in wrong.items():
                if (folder / name).exists():
                    warnings.warn(f"{folder / name} {complaint}; it is made again", stacklevel=2)
                    (folder / name).unlink()
        there = {name: seal for name, seal in noted.items() if size_complaint(folder / name, seal) is None}
        return cls(folder, there, frozenset(noted.keys() - there.keys()))

    def __contains__(self, name: str) -> bool:
        return name in self.seals

    def write(self, name: str, content: bytes) -> None:
        """Write a part whole or not at all, and note it."""
        write_atomically(self.folder / name, content)
        self.seals[name] = Seal.of(content)
        line = json.dumps({"file": name, "seal": self.seals[name].entry}) + "\n"
        with open(self.folder / f"parts-{this_process().rank:05d}.jsonl", "a") as journal:
            journal.write(line)

    @property
    def unsealed(self) -> bool:
        """Whether parts were written that the artefact's manifest does not know."""
        return any(self.folder.glob(JOURNALS))

    def of_all(self) -> dict[str, Seal]:
        """Name -> seal of the parts of every process; all have written theirs."""
        known = {**self.seals, **_noted(self.folder)}
        return {name: seal for name, seal in known.items() if size_complaint(self.folder / name, seal) is None}


def _noted(folder: Path) -> dict[str, Seal]:
    """What an earlier call has sealed, and what was written since; a line that a killed write has cut is none."""
    noted = sealed_files(folder)
    for journal in sorted(folder.glob(JOURNALS)):
        for line in journal.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
                noted[entry["file"]] = Seal.parse(entry["seal"])
            except (ValueError, KeyError, TypeError):
                continue
    return noted


class SealedBlocks(Sequence[np.ndarray]):
    """The arrays NAME-00000.npy, NAME-00001.npy, ... of an artefact, memory-mapped; each is checked when first used.

    A check reads the block once. Processes that were forked off share what was checked, so the workers of a loader read
    a block once in all.
    """

    def __init__(self, artefact: Artefact, name: str) -> None:
        """Take the blocks of `name`, which may lie in a folder of the artefact."""
        self._artefact = artefact
        self._names = sorted(file for file in artefact.seals if BLOCK.sub("", file) == name)
        self._checked = torch.zeros(len(self._names), dtype=torch.bool).share_memory_()
        self._mapped: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is started anew: it maps its own."""
        return {**self.__dict__, "_mapped": {}}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: Any) -> Any:
        """The array of a block; DataError when its file is not what was written."""
        if number not in self._mapped:
            name = self._names[number]
            path = self._artefact.folder / name if self._checked[number] else self._artefact.file(name)
            self._mapped[number] = np.load(path, mmap_mode="r")
            self._checked[number] = True
        return self._mapped[number]
