"""Reads text files with byte order marks, UTF-16 or any line end; other encodings than Unicode are never guessed."""

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smpo.core.errors import DataError

MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
         (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))  # UTF-32's mark starts with UTF-16's
LINE_END = re.compile(r"\r\n|\n|\r")
QUOTED_CELL = re.compile(r'(?:^|\t)"((?:[^"]|"")*)"(?=\t|\r|\n|$)', re.MULTILINE)


def read_text(path: Path, *, strict: bool = True) -> str:
    """The text of `path`: UTF-8, or what its byte order mark says.

    Args:
        path: the file.
        strict: refuse bytes that are not UTF-8; otherwise they become half surrogates, and their row is refused later.

    Raises:
        DataError: the file cannot be read, or has another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); correct the path") from error
    mark, encoding = next(((mark, name) for mark, name in MARKS if data.startswith(mark)), (b"", "utf-8"))
    data = data.removeprefix(mark)
    if encoding == "utf-8" and b"\0" in data[:4]:
        raise DataError(f"{path} starts with NUL bytes: UTF-16 without a mark, or no text; save it as UTF-8")
    try:
        return data.decode(encoding, "strict" if strict else "surrogateescape" if encoding == "utf-8" else "replace")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} is not {encoding.upper()} text ({error.reason} at byte {error.start}, line {line}); "
                        f"save it as UTF-8, e.g. iconv -f latin1 -t utf-8") from error


def text_lines(text: str) -> list[tuple[int, str]]:
    """(number from 1, line) of the lines that are not blank."""
    return [(number, line) for number, line in enumerate(LINE_END.split(text), start=1) if line.strip()]


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or holds a key twice with different values.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_contradiction)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values and repr(values[key]) != repr(value):
            raise ValueError(f"the key {key!r} stands twice")
        values[key] = value
    return values


def read_cells(path: Path, *, strict: bool = True) -> Iterator[tuple[int, dict[str, str], list[str]]]:
    """(line where it ends, column -> cell, cells beyond the header) of each row of a .csv or .tsv table with a header.

    A .csv has the quotes of RFC 4180. Commas separate its cells, or semicolons or tabs if the header has more of these:
    spreadsheets of many countries write semicolons. In a .tsv quotes count if a program wrote them (`_has_quotes`).

    Raises:
        DataError: a quote is not closed, or the header names a column twice.
    """
    text = read_text(path, strict=strict)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    bare = path.suffix.lower() == ".tsv" and not _has_quotes(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True,
                        quoting=csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL)
    header: list[str] | None = None
    with _long_cells():
        try:
            for cells in reader:
                if header is None:
                    header = _header(cells, path)
                elif cells and not (len(cells) == 1 and not cells[0].strip() and len(header) > 1):
                    yield reader.line_num, dict(zip(header, cells, strict=False)), cells[len(header):]
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: {error}; correct the quotes, or save it as .tsv") from error


def header_of(path: Path) -> list[str]:
    """The columns of a .csv or .tsv table."""
    text = LINE_END.split(read_text(path, strict=False), maxsplit=1)[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    return _header(next(csv.reader([text], delimiter=delimiter), []), path)


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise DataError(f"{path} has the column '{twice}' twice; rename one")
    return names


def _delimiter(text: str) -> str:
    header = LINE_END.split(text, maxsplit=1)[0]
    return max((",", ";", "\t"), key=header.count)


def _has_quotes(text: str) -> bool:
    """Whether the quotes in a .tsv belong to the format, as pandas and spreadsheets write them, and not to the prompts.

    These programs quote all cells, or only those that hold a tab, a line end or a quote, which they double. The file of
    PartiPrompts quotes no cell, and 22 of its prompts contain a quote.
    """
    if text.startswith('"'):
        return True
    cells = [match[1] for match in QUOTED_CELL.finditer(text)]
    if not any('""' in cell or "\t" in cell or "\n" in cell for cell in cells):
        return False
    try:
        with _long_cells():
            widths = {len(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True) if row}
    except csv.Error:
        return False
    return len(widths) == 1


@contextmanager
def _long_cells() -> Iterator[None]:
    """Inside, a cell may exceed csv's limit of 131,072 characters, as an image in base64 does."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
