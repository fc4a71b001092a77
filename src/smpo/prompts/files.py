"""One function per kind of prompts file: path -> (line or row number, text or mapping) of every entry."""

import csv
import io
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from smpo.data.parquet import open_parquet
from smpo.errors import DataError

COLUMNS = {
    "text": ("prompt", "Prompt", "Prompts", "caption"),
    "category": ("category", "Category", "style", "tag"),
    "challenge": ("challenge", "Challenge"),
}
"""Field of a prompt -> the columns or keys that may hold it, the first found wins."""

Entries = list[tuple[int, Any]]


def read_txt(path: Path) -> Entries:
    """One prompt a line."""
    return _lines(path)


def read_jsonl(path: Path) -> Entries:
    """A JSON object or string a line."""
    return [(number, _json(line, path, number)) for number, line in _lines(path)]


def read_json(path: Path) -> Entries:
    """A JSON list of objects or strings, such as HPDv2's four files."""
    found = _json(_text(path), path, None)
    if not isinstance(found, list):
        raise DataError(f"{path} holds {type(found).__name__}, expected a JSON list of prompts; correct it")
    return list(enumerate(found, start=1))


def read_csv(path: Path) -> Entries:
    """A table with a header and RFC 4180 quotes."""
    return _table(path, csv.DictReader(io.StringIO(_text(path), newline=""), strict=True))


def read_tsv(path: Path) -> Entries:
    """A table with a header and no quoting: PartiPrompts holds 22 prompts with a bare double quote."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    return _table(path, reader)


def read_parquet(path: Path) -> Entries:
    """A parquet file; only the columns of prompts are read."""
    with open_parquet(path) as file:
        table = file.read(needed_columns(file.schema_arrow.names, source=str(path)))
    return list(enumerate(table.to_pylist(), start=1))


def needed_columns(found: Collection[str], *, source: str) -> list[str]:
    """The columns of `found` that say something about prompts; DataError when none holds their text."""
    if not set(COLUMNS["text"]) & set(found):
        got = ", ".join(found) or "nothing"
        raise DataError(f"{source} has no column named {', '.join(COLUMNS['text'])}, got {got}; rename one")
    return [name for names in COLUMNS.values() for name in names if name in found]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error


def _lines(path: Path) -> list[tuple[int, str]]:
    return list(enumerate(_text(path).removesuffix("\n").split("\n"), start=1))


def _json(text: str, path: Path, line: int | None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = path if line is None else f"{path}:{line}"
        raise DataError(f"{place} is not valid JSON ({error}); correct it") from error


def _table(path: Path, rows: "csv.DictReader[str]") -> Entries:
    """The rows of a table; one with more cells than the header has lost part of its prompt to the next column."""
    needed_columns(rows.fieldnames or (), source=str(path))
    found = []
    try:
        for row in rows:
            if None in row:
                raise DataError(f"{path}:{rows.line_num}: more cells than columns; quote the prompt")
            found.append((rows.line_num, row))
    except csv.Error as error:
        raise DataError(f"{path}:{rows.reader.line_num}: {error}; correct the quotes, or save it as .tsv") from error
    return found


READERS: dict[str, Callable[[Path], Entries]] = {
    ".txt": read_txt, ".jsonl": read_jsonl, ".json": read_json, ".csv": read_csv, ".tsv": read_tsv,
    ".parquet": read_parquet,
}
