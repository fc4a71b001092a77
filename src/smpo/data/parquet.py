"""Format `parquet`: shards of any layout, such as Pick-a-Pic's, streamed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

from smpo.data.entries import cells_of
from smpo.data.files import fingerprint_files
from smpo.data.layouts import Reading, Readings
from smpo.data.parquet_files import choose_files, open_parquet
from smpo.data.records import RawPair, SourceOptions
from smpo.data.rows import raw_pair

BATCH_ROWS = 4  # 8 images: about 12 MB at the 1.5 MB of a large PNG


@dataclass(frozen=True)
class Shard:
    """One parquet file: the position of its first row, the row range of each row group, and what its columns are."""

    file: Path
    first: int
    groups: tuple[range, ...]
    reading: Reading


@dataclass(frozen=True)
class ParquetPairs:
    """A parquet file, or a folder of them, read in the order of their names.

    Memory does not grow with the number or size of the shards; it is a few times the largest row group.

    Attributes:
        source: path of the file or folder.
        options: how it is read; the split is the prefix of the shards' names, needed only where there are several.
    """

    source: str
    options: SourceOptions

    def __post_init__(self) -> None:
        _ = self.shards  # a source that cannot be read is refused here

    @cached_property
    def _readings(self) -> Readings:
        return Readings(self.options.columns)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, from their footers; no column is read."""
        shards, first = [], 0
        for file in choose_files(Path(self.source), self.options.split):
            with open_parquet(file) as parquet:
                bounds = [first]
                for group in range(parquet.metadata.num_row_groups):
                    bounds.append(bounds[-1] + parquet.metadata.row_group(group).num_rows)
                groups = tuple(range(a, b) for a, b in zip(bounds, bounds[1:], strict=False))
                columns = parquet.schema_arrow.names
            shards.append(Shard(file, first, groups, self._readings.required(columns, source=str(file))))
            first = bounds[-1]
        return tuple(shards)

    @property
    def has_labels(self) -> bool:
        """Whether every shard has columns of labels or votes."""
        return all(shard.reading.has_labels for shard in self.shards)

    def __len__(self) -> int:
        last = self.shards[-1]
        return last.groups[-1].stop if last.groups else last.first

    def describe(self) -> str:
        """The layout of the shards."""
        return self._readings.describe()

    def fingerprint(self) -> str:
        """Digest of the names and contents of the shards."""
        root = Path(self.source)
        return fingerprint_files([s.file for s in self.shards], root=root if root.is_dir() else root.parent)

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`; row groups without any of them are not read."""
        wanted = rows if isinstance(rows, range) else frozenset(rows)
        for shard in self.shards:
            groups = [index for index, group in enumerate(shard.groups) if _overlap(group, wanted)]
            if groups:
                yield from self._read_groups(shard, groups, wanted)

    def _read_groups(self, shard: Shard, groups: list[int], wanted: range | frozenset[int]) -> Iterator[RawPair]:
        positions = chain.from_iterable(shard.groups[group] for group in groups)
        images = self.options.images(shard.file.parent)
        with open_parquet(shard.file) as parquet:
            columns = list(shard.reading.columns.values())
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False):
                for index, row in enumerate(islice(positions, batch.num_rows)):
                    if row in wanted:
                        place = f"{shard.file.name} row {row - shard.first + 1}"
                        yield raw_pair(row, cells_of(batch, index), shard.reading, images, place=place)


def _overlap(group: range, wanted: range | frozenset[int]) -> bool:
    if isinstance(wanted, range):
        return bool(wanted) and wanted[0] < group.stop and wanted[-1] >= group.start
    return any(row in wanted for row in group)
