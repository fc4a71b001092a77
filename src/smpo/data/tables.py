"""Pairs in text tables: .jsonl, .json, .csv, .tsv, and parquet tables that rank image files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from smpo.core.errors import DataError
from smpo.data.entries import ENTRIES, Entry
from smpo.data.files import fingerprint_files
from smpo.data.layouts import ColumnMap, LayoutFinder
from smpo.data.rankings import pairs_of
from smpo.data.records import RawPair, SourceOptions, broken_row
from smpo.data.row_images import ImageFiles
from smpo.data.rows import raw_pair
from smpo.data.values import is_missing

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet", "metadata.json")  # of datasets' imagefolder


@dataclass(frozen=True)
class TablePairs:
    """A table, or a folder with exactly one table of its format, or with metadata.* as datasets' imagefolder has it.

    The rows are in memory, because they are only text; images are read one by one. Paths are relative to the folder of
    the table. Each row may have its own layout.

    Attributes:
        source: path of the file or folder.
        options: how it is read; it has no splits.
    """

    source: str
    options: SourceOptions

    def __post_init__(self) -> None:
        self.options.refuse_split("file")
        self._layouts.check_rows((row.values or () for row in self._rows), source=str(self._file))

    @cached_property
    def _file(self) -> Path:
        return table_of(Path(self.source), self.options.format)

    @cached_property
    def _images(self) -> ImageFiles:
        return self.options.images(self._file.parent)

    @cached_property
    def _layouts(self) -> LayoutFinder:
        return LayoutFinder(self.options.columns)

    @cached_property
    def _table(self) -> tuple[str, list[Entry]]:
        entries = list(ENTRIES[self._file.suffix.lower()](self._file))
        first = next((entry.values for entry in entries if entry.values), {})
        paired = LayoutFinder(self.options.columns).of(first)
        return (None if paired else pairs_of(entries)) or ("", entries)

    @property
    def _rows(self) -> list[Entry]:
        return self._table[1]

    def _mapping(self, values: Mapping[str, Any]) -> ColumnMap | None:
        """The column map of a row: by all columns, or if an image is missing, by the columns that hold a value.

        In a .csv each row has the columns of all rows.
        """
        whole = self._layouts.of(values)
        if whole and not any(is_missing(values[whole.columns[side]]) for side in ("image_0", "image_1")):
            return whole
        return self._layouts.of(name for name, value in values.items() if not is_missing(value)) or whole

    @cached_property
    def has_labels(self) -> bool:
        """Whether any row has columns of labels or votes."""
        mappings = (self._mapping(row.values) for row in self._rows if row.values)
        return any(mapping.has_labels for mapping in mappings if mapping)

    def __len__(self) -> int:
        return len(self._rows)

    def describe(self) -> str:
        """The layouts of its rows."""
        return self._table[0] or self._layouts.describe()

    def fingerprint(self) -> str:
        """Digest of the table and of the names and contents of the images that it names."""
        images = [path for row in self._rows if row.values for path in self._paths(row.values)]
        root = self._file.parent
        return fingerprint_files([self._file, *images], root=root)

    def _paths(self, values: Mapping[str, Any]) -> Iterator[Path]:
        if mapping := self._mapping(values):
            for side in ("image_0", "image_1"):
                value = values.get(mapping.columns[side])
                if isinstance(value, str) and (path := self._images.path(value)):
                    yield path

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`."""
        return (self._raw_pair(row, self._rows[row]) for row in rows)

    def _raw_pair(self, row: int, entry: Entry) -> RawPair:
        if entry.values is None:
            return broken_row(row, "malformed_row", entry.problem, place=entry.place)
        if (mapping := self._mapping(entry.values)) is None:
            columns = ", ".join(map(str, entry.values))[:200]
            return broken_row(row, "malformed_row", f"no layout fits its columns: {columns!r}", place=entry.place)
        return raw_pair(row, entry.values, mapping, self._images, place=entry.place)


def table_of(path: Path, format: str) -> Path:
    """The table of `format` at `path`, or in the folder `path`.

    Raises:
        DataError: there is none, or more than one.
    """
    if path.is_dir():
        tables = tables_in(path, format)
        if len(tables) != 1:
            raise DataError(f"{path} must be a .{format} file or a folder with exactly one, found {len(tables)}")
        return tables[0]
    if not path.is_file():
        raise DataError(f"{path} does not exist; correct the path")
    return path


def tables_in(folder: Path, format: str) -> list[Path]:
    """The tables of `format` in `folder`; only metadata.* if there is one."""
    endings = {".jsonl", ".ndjson"} if format == "jsonl" else {f".{format}"}
    if format == "metadata":
        return [folder / "metadata.parquet"]
    tables = sorted(path for path in folder.iterdir()
                    if path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file())
    return [path for path in tables if path.name in METADATA] or tables
