"""Format `parquet`: shards of any layout, such as Pick-a-Pic's, read in bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

from smpo.data.entries import cells_of
from smpo.data.files import fingerprint_files
from smpo.data.layouts import ColumnMap, LayoutFinder
from smpo.data.parquet_files import choose_files, open_parquet
from smpo.data.records import RawPair, SourceOptions
from smpo.data.rows import raw_pair

BATCH_ROWS = 4  # 8 images: about 12 MB at the 1.5 MB of a large PNG


@dataclass(frozen=True)
class Shard:
    """A parquet file: the position of its first row, the row range of each row group, and its column map."""

    file: Path
    first: int
    groups: tuple[range, ...]
    mapping: ColumnMap


@dataclass(frozen=True)
class ParquetPairs:
    """A parquet file, or a folder of them, read in the order of their names.

    The memory needed is a few times the largest row group, whatever the number and size of the shards.

    Attributes:
        source: path of the file or folder.
        options: how it is read; the split is the prefix of the shards' names, needed only if there are several.
    """

    source: str
    options: SourceOptions

    def __post_init__(self) -> None:
        _ = self.shards  # raises if the source cannot be read

    @cached_property
    def _layouts(self) -> LayoutFinder:
        return LayoutFinder(self.options.columns)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, from the footers of the files; no column is read."""
        shards, first = [], 0
        for file in choose_files(Path(self.source), self.options.split):
            with open_parquet(file) as parquet:
                bounds = [first]
                for group in range(parquet.metadata.num_row_groups):
                    bounds.append(bounds[-1] + parquet.metadata.row_group(group).num_rows)
                groups = tuple(range(a, b) for a, b in zip(bounds, bounds[1:], strict=False))
                columns = parquet.schema_arrow.names
            shards.append(Shard(file, first, groups, self._layouts.required(columns, source=str(file))))
            first = bounds[-1]
        return tuple(shards)

    @property
    def has_labels(self) -> bool:
        """Whether every shard has columns of labels or votes."""
        return all(shard.mapping.has_labels for shard in self.shards)

    def __len__(self) -> int:
        last = self.shards[-1]
        return last.groups[-1].stop if last.groups else last.first

    def describe(self) -> str:
        """The layout of the shards."""
        return self._layouts.describe()

    def fingerprint(self) -> str:
        """Digest of the names and contents of the shards."""
        root = Path(self.source)
        return fingerprint_files([s.file for s in self.shards], root=root if root.is_dir() else root.parent)

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`; other row groups are not read."""
        chosen = rows if isinstance(rows, range) else frozenset(rows)
        for shard in self.shards:
            groups = [index for index, group in enumerate(shard.groups) if _overlap(group, chosen)]
            if groups:
                yield from self._read_groups(shard, groups, chosen)

    def _read_groups(self, shard: Shard, groups: list[int], chosen: range | frozenset[int]) -> Iterator[RawPair]:
        positions = chain.from_iterable(shard.groups[group] for group in groups)
        images = self.options.images(shard.file.parent)
        with open_parquet(shard.file) as parquet:
            columns = list(shard.mapping.columns.values())
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False):
                for index, row in enumerate(islice(positions, batch.num_rows)):
                    if row in chosen:
                        place = f"{shard.file.name} row {row - shard.first + 1}"
                        yield raw_pair(row, cells_of(batch, index), shard.mapping, images, place=place)


def _overlap(group: range, chosen: range | frozenset[int]) -> bool:
    if isinstance(chosen, range):
        return bool(chosen) and chosen[0] < group.stop and chosen[-1] >= group.start
    return any(row in chosen for row in group)
