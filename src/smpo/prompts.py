"""Lists of prompts from files."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smpo.checks import check_known
from smpo.errors import DataError

PROMPT_COLUMNS = ("prompt", "Prompt", "caption")


def read_prompts(source: Path | str | Sequence[str]) -> list[str]:
    """The prompts of a list or of a .txt, .jsonl, .json, .csv or .tsv file, in its order.

    A table needs a column, a JSON line a key, named prompt, Prompt or caption.

    Raises:
        DataError: the file cannot be read, or a prompt is empty: names file and line.
    """
    if not isinstance(source, str | Path):
        found, name = list(enumerate(source, start=1)), "prompts"
    else:
        path = Path(source)
        found, name = _read_numbered(path), str(path)
    if not found:
        raise DataError(f"{name} holds no prompts; add at least one")
    for line, prompt in found:
        if not isinstance(prompt, str) or not prompt.strip():
            raise DataError(f"{name}:{line}: expected a prompt, got {prompt!r}; correct or delete the line")
    return [prompt.strip() for _, prompt in found]


def _read_numbered(path: Path) -> list[tuple[int, Any]]:
    """(line or entry number, prompt) of every entry of a prompts file."""
    check_known(path.suffix, (".txt", ".jsonl", ".json", ".csv", ".tsv"), what="kind of prompts file")
    if not path.is_file():
        raise DataError(f"{path} does not exist; correct the path")
    text = path.read_text(encoding="utf-8-sig")
    lines = list(enumerate(text.removesuffix("\n").split("\n"), start=1))
    try:
        if path.suffix == ".txt":
            return lines
        if path.suffix == ".jsonl":
            return [(number, _named(json.loads(line))) for number, line in lines]
        if path.suffix == ".json":
            return list(enumerate(json.loads(text), start=1))
    except (json.JSONDecodeError, TypeError) as error:
        raise DataError(f"{path} is not valid {path.suffix[1:].upper()} of prompts ({error}); correct it") from error
    return _read_table(text, path)


def _read_table(text: str, path: Path) -> list[tuple[int, str | None]]:
    # Quotes in a .tsv are text: PartiPrompts holds 22 prompts with a bare double quote.
    kind = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    reader = csv.DictReader(io.StringIO(text, newline=""), **kind)
    if not set(PROMPT_COLUMNS) & set(reader.fieldnames or ()):
        got = ", ".join(reader.fieldnames or ["nothing"])
        raise DataError(f"{path} has no column named {', '.join(PROMPT_COLUMNS)}, got {got}; rename one")
    return [(reader.line_num, _named(row)) for row in reader]


def _named(row: dict[str, Any]) -> Any:
    return next((row[key] for key in PROMPT_COLUMNS if key in row), None) if isinstance(row, dict) else None
