"""A reader for each kind of prompts file: path -> list of (line or row number, text or mapping)."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from smpo.core.errors import DataError
from smpo.data.parquet_files import open_parquet
from smpo.data.text import header_of, parse_json, read_cells, read_text, text_lines

COLUMNS = {
    "text": ("prompt", "Prompt", "Prompts", "caption"),
    "category": ("category", "Category", "style", "tag"),
    "challenge": ("challenge", "Challenge"),
}
"""Field of a prompt -> the columns or keys that may hold it; the first that exists is read."""

Entries = list[tuple[int, Any]]


def read_txt(path: Path) -> Entries:
    """One prompt per line; blank lines are skipped."""
    return list(text_lines(read_text(path)))


def read_jsonl(path: Path) -> Entries:
    """One JSON object or string per line; blank lines are skipped."""
    return [(number, _json(line, path, number)) for number, line in text_lines(read_text(path))]


def read_json(path: Path) -> Entries:
    """A JSON list of objects or strings, such as HPDv2's four files."""
    prompts = _json(read_text(path), path, None)
    if not isinstance(prompts, list):
        raise DataError(f"{path} holds {type(prompts).__name__}, expected a JSON list of prompts; correct it")
    return list(enumerate(prompts, start=1))


def read_table(path: Path) -> Entries:
    """A .csv or .tsv table with a header; see `read_cells` for its quotes."""
    needed_columns(header_of(path), source=str(path))
    entries: Entries = []
    for line, row, surplus in read_cells(path):
        if surplus:  # part of the prompt would be in the next column
            raise DataError(f"{path}:{line}: more cells than columns; quote the prompt")
        entries.append((line, row))
    return entries


def read_parquet(path: Path) -> Entries:
    """A parquet file; only the columns of prompts are read."""
    with open_parquet(path) as file:
        table = file.read(needed_columns(file.schema_arrow.names, source=str(path)))
        return list(enumerate(table.to_pylist(), start=1))


def needed_columns(columns: Collection[str], *, source: str) -> list[str]:
    """Those of `columns` that hold fields of prompts; DataError if none holds the text."""
    if not set(COLUMNS["text"]) & set(columns):
        got = ", ".join(columns) or "nothing"
        raise DataError(f"{source} has no column named {', '.join(COLUMNS['text'])}, got {got}; rename one")
    return [name for names in COLUMNS.values() for name in names if name in columns]


def _json(text: str, path: Path, line: int | None) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        place = path if line is None else f"{path}:{line}"
        raise DataError(f"{place} is not valid JSON ({error}); correct it") from error


READERS: dict[str, Callable[[Path], Entries]] = {
    ".txt": read_txt, ".jsonl": read_jsonl, ".json": read_json, ".csv": read_table, ".tsv": read_table,
    ".parquet": read_parquet,
}
"""Suffix of a file name, in lower case -> its reader."""
