"""Tables with a row per pair, which the stages `score` and `label` write."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from smpo.core.artefacts import Artefact


@dataclass(frozen=True)
class PairTable:
    """A table of a complete artefact, with pairs in the order of the pair set.

    Attributes:
        stage: name of the stage that writes the table.
        file: its name in the artefact.
        schema: its columns; pair_id is one of them.
        artefact: of the stage.
        table: its content.
    """

    stage: ClassVar[str]
    file: ClassVar[str]
    schema: ClassVar[pa.Schema]
    artefact: Artefact
    table: pa.Table

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """The table in `folder`.

        Raises:
            DataError: the folder holds no complete artefact of the stage, or the table has changed.
        """
        artefact = Artefact.open(folder, stage=cls.stage)
        return cls(artefact, pq.read_table(pa.BufferReader(artefact.read(cls.file)), schema=cls.schema))

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def folder(self) -> Path:
        """Folder of the artefact."""
        return self.artefact.folder

    @property
    def fingerprint(self) -> str:
        """Later stages record it as the fingerprint of this input."""
        return self.artefact.fingerprint

    @property
    def pairs_fingerprint(self) -> str:
        """Fingerprint of the pair set from which the table was made."""
        return self.artefact.manifest["inputs"]["pairs"]

    @cached_property
    def pair_ids(self) -> tuple[str, ...]:
        """Name of each pair."""
        return tuple(self.table["pair_id"].to_pylist())

    def column(self, name: str) -> Tensor:
        """The numbers in a column, shape (N,)."""
        return torch.tensor(self.table[name].to_numpy())
