"""Format `tar`: webdataset's shards with files such as 0001.chosen.png, 0001.rejected.png and 0001.json.

Consecutive files whose names are equal up to the first dot are one sample; the rest of a name is the field. Shards are
read without unpacking.
"""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from smpo.core.errors import DataError
from smpo.data.files import fingerprint_files
from smpo.data.folders import IMAGE_SUFFIXES
from smpo.data.layouts import ColumnMap, LayoutFinder
from smpo.data.parquet_files import files_below
from smpo.data.records import RawPair, SourceOptions, broken_row
from smpo.data.rows import raw_pair
from smpo.data.text import parse_json
from smpo.data.values import RowProblem, malformed

MAX_TEXT_BYTES = 16 << 20  # of a sample's .json or .txt
TEXTS = ("txt", "caption")


@dataclass(frozen=True)
class Sample:
    """One sample: its shard, its name, and (offset, size) in bytes of each field."""

    shard: Path
    key: str
    fields: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class TarPairs:
    """A .tar file, or a folder of them, in the order of their names. Only the index of their files is in memory.

    Images are fields such as `chosen.png`, `0.jpg` or `jpg_0`. The text of `.txt` is the prompt, and the keys of
    `.json` are columns.

    Attributes:
        source: path of the file or folder.
        options: how it is read; it has no splits.
    """

    source: str
    options: SourceOptions

    def __post_init__(self) -> None:
        self.options.refuse_split("folder")
        self._layouts.check_rows(map(self._columns, self._samples), source=self.source)

    @cached_property
    def _shards(self) -> list[Path]:
        path = Path(self.source)
        shards = files_below(path, "*.tar") if path.is_dir() else [path]
        if not shards or not shards[0].is_file():
            raise DataError(f"{path} holds no .tar file; correct the path, and unpack a .tar.gz")
        return shards

    @cached_property
    def _samples(self) -> list[Sample]:
        return [sample for shard in self._shards for sample in _index(shard)]

    @cached_property
    def _layouts(self) -> LayoutFinder:
        return LayoutFinder(self.options.columns)

    @cached_property
    def has_labels(self) -> bool:
        """Whether any sample has columns of labels or votes."""
        return any(mapping.has_labels for mapping in self._layouts.used)

    def _columns(self, sample: Sample) -> list[str]:
        """The columns of a sample, from its texts and the names of its images; none if a text is broken."""
        try:
            return list(self._values(sample, images=False))
        except RowProblem:
            return []

    def __len__(self) -> int:
        return len(self._samples)

    def describe(self) -> str:
        """The layouts of its samples."""
        return self._layouts.describe()

    def fingerprint(self) -> str:
        """Digest of the names and contents of the shards."""
        root = Path(self.source)
        return fingerprint_files(self._shards, root=root if root.is_dir() else root.parent)

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`."""
        return (self._raw_pair(row, self._samples[row]) for row in rows)

    def _raw_pair(self, row: int, sample: Sample) -> RawPair:
        place = f"{sample.shard.name} sample {sample.key!r}"
        try:
            values = self._values(sample)
            mapping: ColumnMap | None = self._layouts.of(values)
            if mapping is None:
                raise malformed(f"no layout fits its fields: {', '.join(sample.fields)!r}")
        except RowProblem as problem:
            return broken_row(row, problem.reason, problem.detail, place=place)
        return raw_pair(row, values, mapping, self.options.images(sample.shard.parent), place=place)

    def _values(self, sample: Sample, *, images: bool = True) -> dict[str, Any]:
        """Column -> value of a sample; without `images`, images are None."""
        values: dict[str, Any] = {}
        with open(sample.shard, "rb") as stream:
            for name, (offset, size) in sample.fields.items():
                column, ending = _column(name)
                if ending in TEXTS:
                    values[column or "prompt"] = _text(stream, offset, size, name)
                elif ending == "json":
                    entries = _object(_text(stream, offset, size, name), name)
                    values |= {f"{column}.{key}" if column else key: value for key, value in entries.items()}
                else:
                    values[column] = _bytes(stream, offset, size) if images else None
        return values


def _index(shard: Path) -> Iterator[Sample]:
    """The samples of a shard, from the headers of its files."""
    key, fields = "", dict[str, tuple[int, int]]()
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                stem, _, field = path.name.partition(".")
                if not member.isreg() or not stem or not field or path.name.startswith("._"):
                    continue
                name = str(path.parent / stem)
                if name != key and fields:
                    yield Sample(shard, key, fields)
                    fields = {}
                key = name
                fields[field] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard} is no readable .tar file ({error}); download it again, unpack a .tar.gz") from error
    if fields:
        yield Sample(shard, key, fields)


def _column(field: str) -> tuple[str, str]:
    """(column, ending) of a field: ("chosen", "png") of chosen.png, ("", "json") of json, ("jpg_0", "") of jpg_0."""
    column, _, ending = field.rpartition(".")
    ending = ending.lower()
    if ending in (*TEXTS, "json") or f".{ending}" in IMAGE_SUFFIXES:
        return column, ending
    return field, ""


def _bytes(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


def _text(stream: BinaryIO, offset: int, size: int, name: str) -> str:
    if size > MAX_TEXT_BYTES:
        raise malformed(f"{name} has {size} bytes, at most {MAX_TEXT_BYTES} are read")
    try:
        return _bytes(stream, offset, size).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise malformed(f"{name} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise malformed(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise malformed(f"{name} is not a JSON object")
    return value
