"""Pairs in text tables: .jsonl, .json, .csv, .tsv, and parquet metadata that ranks images which lie elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from smpo.core.errors import DataError
from smpo.data.entries import ENTRIES, Entry
from smpo.data.files import fingerprint_files
from smpo.data.layouts import Reading, Readings
from smpo.data.rankings import pairs_of
from smpo.data.records import RawPair, SourceOptions, broken_row
from smpo.data.row_images import ImageFiles
from smpo.data.rows import raw_pair
from smpo.data.values import is_missing

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet", "metadata.json")  # of datasets' imagefolder


@dataclass(frozen=True)
class TablePairs:
    """A table, or a folder with exactly one of its format, or with metadata.* as datasets' imagefolder has it.

    Its rows are text, so that they fit in memory; images are read one by one. Paths in it start from its folder.
    Every row may have a layout of its own.

    Attributes:
        source: path of the file or folder.
        options: how it is read; it has no splits.
    """

    source: str
    options: SourceOptions

    def __post_init__(self) -> None:
        self.options.refuse_split("file")
        self._readings.check_rows((row.values or () for row in self._rows), source=str(self._file))

    @cached_property
    def _file(self) -> Path:
        return table_of(Path(self.source), self.options.format)

    @cached_property
    def _images(self) -> ImageFiles:
        return self.options.images(self._file.parent)

    @cached_property
    def _readings(self) -> Readings:
        return Readings(self.options.columns)

    @cached_property
    def _table(self) -> tuple[str, list[Entry]]:
        entries = list(ENTRIES[self._file.suffix.lower()](self._file))
        first = next((entry.values for entry in entries if entry.values), {})
        paired = Readings(self.options.columns).of(first)
        return (None if paired else pairs_of(entries)) or ("", entries)

    @property
    def _rows(self) -> list[Entry]:
        return self._table[1]

    def _reading(self, values: Mapping[str, Any]) -> Reading | None:
        """By all columns, or where one of its images is missing by those that hold something.

        A .csv has the columns of all rows in each.
        """
        whole = self._readings.of(values)
        if whole and not any(is_missing(values[whole.columns[side]]) for side in ("image_0", "image_1")):
            return whole
        return self._readings.of(name for name, value in values.items() if not is_missing(value)) or whole

    @cached_property
    def has_labels(self) -> bool:
        """Whether any row says which image is preferred, or by how many."""
        readings = (self._reading(row.values) for row in self._rows if row.values)
        return any(reading.has_labels for reading in readings if reading)

    def __len__(self) -> int:
        return len(self._rows)

    def describe(self) -> str:
        """The layouts of its rows."""
        return self._table[0] or self._readings.describe()

    def fingerprint(self) -> str:
        """Digest of the table and of the names and contents of the images that it names."""
        images = [path for row in self._rows if row.values for path in self._paths(row.values)]
        root = self._file.parent
        return fingerprint_files([self._file, *images], root=root)

    def _paths(self, values: Mapping[str, Any]) -> Iterator[Path]:
        if reading := self._reading(values):
            for side in ("image_0", "image_1"):
                value = values.get(reading.columns[side])
                if isinstance(value, str) and (path := self._images.path(value)):
                    yield path

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`."""
        return (self._raw_pair(row, self._rows[row]) for row in rows)

    def _raw_pair(self, row: int, entry: Entry) -> RawPair:
        if entry.values is None:
            return broken_row(row, "malformed_row", entry.problem, place=entry.place)
        if (reading := self._reading(entry.values)) is None:
            columns = ", ".join(map(str, entry.values))[:200]
            return broken_row(row, "malformed_row", f"no layout fits its columns: {columns!r}", place=entry.place)
        return raw_pair(row, entry.values, reading, self._images, place=entry.place)


def table_of(path: Path, format: str) -> Path:
    """The table of `format` that `path` is, or the one that lies in that folder.

    Raises:
        DataError: there is none, or more than one.
    """
    if path.is_dir():
        found = tables_in(path, format)
        if len(found) != 1:
            raise DataError(f"{path} must be a .{format} file or a folder with exactly one, found {len(found)}")
        return found[0]
    if not path.is_file():
        raise DataError(f"{path} does not exist; correct the path")
    return path


def tables_in(folder: Path, format: str) -> list[Path]:
    """The tables of `format` in `folder`; of several, metadata.* is the one."""
    endings = {".jsonl", ".ndjson"} if format == "jsonl" else {f".{format}"}
    if format == "metadata":
        return [folder / "metadata.parquet"]
    found = sorted(path for path in folder.iterdir()
                   if path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file())
    return [path for path in found if path.name in METADATA] or found
