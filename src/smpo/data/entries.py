"""The rows of text tables (.jsonl, .json, .csv, .tsv) and of parquet tables without images, each with its place."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from smpo.core.errors import DataError
from smpo.data.parquet_files import open_parquet
from smpo.data.text import parse_json, read_cells, read_text, text_lines
from smpo.data.values import Unreadable


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes:
        place: file and line or row, for people.
        values: column -> value; None if the row cannot be read.
        problem: what is wrong with a row that cannot be read.
    """

    place: str
    values: Mapping[str, Any] | None
    problem: str = ""


def jsonl_entries(path: Path) -> Iterator[Entry]:
    """The rows of a file with a JSON object per line; blank lines are skipped."""
    yield from _of_lines(path, read_text(path, strict=False))


def json_entries(path: Path) -> Iterator[Entry]:
    """The rows of a JSON list of objects, or of JSON lines: many .json files of the hub hold lines.

    Raises:
        DataError: it is neither.
    """
    text = read_text(path, strict=False)
    try:
        rows = parse_json(text)
    except ValueError as error:
        lines = text_lines(text)
        if len(lines) > 1 and lines[0][1].lstrip().startswith("{") and lines[0][1].rstrip().endswith("}"):
            yield from _of_lines(path, text)
            return
        raise DataError(f"{path} is not valid JSON ({error}); correct it") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds {type(rows).__name__}, expected a JSON list of objects, one a pair; correct it")
    for number, values in enumerate(rows, start=1):
        yield _entry(values, f"{path.name} entry {number}")


def cell_entries(path: Path) -> Iterator[Entry]:
    """The rows of a .csv or .tsv table; all values are text."""
    for line, row, surplus in read_cells(path, strict=False):
        place = f"{path.name} line {line}"
        yield Entry(place, None, "more cells than columns; quote the prompt") if surplus else Entry(place, row)


def parquet_entries(path: Path) -> Iterator[Entry]:
    """The rows of a parquet table that names image files.

    Raises:
        DataError: a column holds bytes: the images of all rows would be in memory at once.
    """
    with open_parquet(path) as file:
        if binary := [field.name for field in file.schema_arrow if _holds_bytes(field.type)]:
            raise DataError(f"{path} holds bytes in {', '.join(binary)}; tables that rank images must name their files")
        number = 0
        for batch in file.iter_batches():
            for index in range(batch.num_rows):
                number += 1
                yield Entry(f"{path.name} row {number}", cells_of(batch, index))


def _holds_bytes(kind: pa.DataType) -> bool:
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or any(map(_holds_bytes, inner))


def cells_of(batch: pa.RecordBatch, index: int) -> dict[str, Any]:
    """Column -> value of row `index` of `batch`; a value that cannot be decoded is Unreadable."""
    return {name: _cell(batch.column(position), index) for position, name in enumerate(batch.schema.names)}


def _cell(column: pa.Array, index: int) -> Any:
    try:
        return column[index].as_py()
    except (ValueError, OverflowError, TypeError) as error:  # not UTF-8, a date that Python cannot hold, a key twice
        return Unreadable(str(error).partition("\n")[0])


ENTRIES: dict[str, Callable[[Path], Iterator[Entry]]] = {
    ".jsonl": jsonl_entries, ".ndjson": jsonl_entries, ".json": json_entries, ".csv": cell_entries,
    ".tsv": cell_entries, ".parquet": parquet_entries,
}
"""Suffix of a table's file name -> function that reads its rows."""


def _of_lines(path: Path, text: str) -> Iterator[Entry]:
    for number, line in text_lines(text):
        place = f"{path.name} line {number}"
        try:
            values = parse_json(line)
        except ValueError as error:
            yield Entry(place, None, f"not JSON: {error}")
        else:
            yield _entry(values, place)


def _entry(values: Any, place: str) -> Entry:
    if not isinstance(values, dict):
        return Entry(place, None, "not a JSON object")
    return Entry(place, values)
