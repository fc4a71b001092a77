"""Scores on disk while they are computed: a file per scorer and block of rows, so that a killed run loses one block."""

import itertools
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from smpo.core.artefacts import write_atomically
from smpo.core.processes import this_process, wait_for_all
from smpo.rewards.options import ScoringOptions
from smpo.rewards.scorer import Scorer
from smpo.rewards.scoring import Rows, Verdicts, score_blocks

Progress = Callable[[str, int, int], None]
"""Called after each batch with (scorers and images per second, rows done, rows in all)."""


@dataclass(frozen=True)
class ScoreBlocks:
    """The block files of one scorer.

    Attributes:
        folder: where they are; nothing else is there.
        names: of each row; a block counts as done only if it holds just the names that belong there.
        size: rows of a block.
    """

    folder: Path
    names: Sequence[str]
    size: int

    @cached_property
    def ranges(self) -> dict[int, range]:
        """Number -> rows of each block."""
        starts = range(0, len(self.names), self.size)
        return {number: range(start, min(start + self.size, len(self.names))) for number, start in enumerate(starts)}

    def missing(self) -> list[int]:
        """The blocks that are not there, are damaged, or were begun with another block size; ascending."""
        return [number for number in self.ranges if self._read(number) is None]

    def write(self, number: int, scores: Tensor, verdicts: Verdicts | None) -> None:
        """Store a block: scores (rows, images of a row), and each image's verdicts, if the scorer gives any."""
        names = [self.names[row] for row in self.ranges[number]]
        columns: dict[str, Any] = {"name": names, "scores": scores.tolist()}
        if verdicts is not None:
            columns["verdicts"] = [json.dumps(of_row) for of_row in verdicts]
        types = {"name": pa.string(), "scores": pa.list_(pa.float32()), "verdicts": pa.string()}
        table = pa.table({key: pa.array(values, types[key]) for key, values in columns.items()})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, write_page_checksum=True)
        write_atomically(self._file(number), sink.getvalue().to_pybytes())

    def joined(self) -> tuple[Tensor, Verdicts | None]:
        """Scores of all rows, shape (rows, images of a row), float32, and the verdicts where the scorer gives any."""
        table = pa.concat_tables([self._read(number) for number in self.ranges])
        scores = torch.tensor(table["scores"].combine_chunks().flatten().to_numpy()).unflatten(0, (len(table), -1))
        given = table["verdicts"].to_pylist() if "verdicts" in table.schema.names else None
        return scores, None if given is None else [json.loads(line) for line in given]

    def remove(self) -> None:
        """Delete all block files, leftovers of killed writes included."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"block-{number:05d}.parquet"

    def _read(self, number: int) -> pa.Table | None:
        """The block, or None unless it is whole."""
        try:
            table = pq.read_table(self._file(number), page_checksum_verification=True)
        except (OSError, pa.ArrowException):  # not there, or cut off, or its checksum is wrong
            return None
        rows = self.ranges[number]
        return table if table["name"].to_pylist() == list(self.names[rows.start : rows.stop]) else None


def fill(columns: Mapping[str, ScoreBlocks], scorers: Mapping[str, Scorer], rows: Rows, *,
         decode: Callable[[Any], Image.Image], options: ScoringOptions, progress: Progress | None = None) -> int:
    """Compute the blocks that are missing in `columns` (name -> files, all of the same rows), and return their number.

    All columns that lack a block get it in one pass over its images. Processes that were started together share the
    missing blocks: each takes a contiguous part of them, so that a prompt's images, which often are neighbours, come to
    one process. On return every process has done its part.

    Raises:
        DataError: see `score_blocks`.
        ProcessError: another process ended early.
    """
    lacking: dict[int, tuple[str, ...]] = {}
    for name, column in columns.items():
        for number in column.missing():
            lacking[number] = (*lacking.get(number, ()), name)
    wait_for_all("list the missing blocks")
    ranges = next((column.ranges for column in columns.values()), {})
    own = _share(sorted(lacking))
    there = sum(len(rows) for number, rows in ranges.items() if number not in lacking)
    meter = _Meter(ranges, own, there, progress)
    for names, numbers in itertools.groupby(own, key=lacking.__getitem__):
        meter.label = ", ".join(names)
        blocks = score_blocks(rows, {number: ranges[number] for number in numbers}, {n: scorers[n] for n in names},
                              decode=decode, options=options, on_batch=meter.batch)
        for block in blocks:
            for name in names:
                columns[name].write(block.number, block.scores[name], block.verdicts.get(name))
            meter.block(block.number)
    wait_for_all("score their blocks")
    return sum(map(len, lacking.values()))


def _share(numbers: Sequence[int]) -> list[int]:
    """The contiguous part of `numbers` that is this process's; all parts make the whole."""
    process = this_process()
    start, stop = (len(numbers) * rank // process.world_size for rank in (process.rank, process.rank + 1))
    return list(numbers[start:stop])


@dataclass
class _Meter:
    """Rows done and images a second, of this process."""

    ranges: Mapping[int, range]
    own: Sequence[int]
    done: int  # rows that were there before
    progress: Progress | None
    label: str = ""
    images: int = 0
    since: float | None = None

    def __post_init__(self) -> None:
        """A process among several counts its own rows only: the others' would need messages."""
        process = this_process()
        self.place = f", process {process.rank + 1} of {process.world_size}" if process.world_size > 1 else ""
        self.done = self.done if process.world_size == 1 else 0
        self.total = self.done + sum(len(self.ranges[number]) for number in self.own)

    def batch(self, images: int) -> None:
        """Count a batch; the clock starts after the first one, which loads the models."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
        else:
            self.images += images
        self._show(now - self.since)

    def block(self, number: int) -> None:
        """Count a block's rows."""
        self.done += len(self.ranges[number])
        self._show(time.monotonic() - (self.since or 0))

    def _show(self, seconds: float) -> None:
        if self.progress is not None:
            rate = f", {self.images / seconds:.3g} images/s" if self.images else ""
            self.progress(f"{self.label}{rate}{self.place}", self.done, self.total)
