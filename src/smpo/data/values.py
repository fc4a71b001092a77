"""Converts values in the rows of tables to numbers, truth values and texts, and shows them in messages."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

SHOWN_CHARACTERS = 60
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
LONG_INT_BITS = 1024  # float64 ends at 2 ** 1024


class RowProblem(Exception):
    """A row that cannot be used: `reason` is a code, `detail` names column and value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that the file's format could not decode; `why` is the reason."""

    why: str


def malformed(detail: str) -> RowProblem:
    """The problem of a row with values of the wrong type, or values that contradict each other."""
    return RowProblem("malformed_row", detail)


def shown(value: Any) -> str:
    """`value` as one line of printable characters, shortened to SHOWN_CHARACTERS."""
    if isinstance(value, Unreadable):
        return f"unreadable ({value.why})"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > LONG_INT_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes that start with {bytes(value[:8]).hex()}"
    if isinstance(value, str):
        value = value[:SHOWN_CHARACTERS + 1]
    try:
        text = repr(value)  # escapes what cannot be printed
    except (ValueError, RecursionError):  # a value that contains itself, or an integer of 5000 digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS - 3]}..."


def plain(value: Any) -> Any:
    """`value`; a numpy scalar becomes a Python value."""
    return value.item() if isinstance(value, np.generic) else value


def is_missing(value: Any) -> bool:
    """Whether `value` is None, NaN (pandas' null) or blank text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or isinstance(value, float | Decimal) and math.isnan(value)


def as_number(value: Any, *, name: str) -> float | None:
    """`value` as a float; text is converted, because all cells of a .csv are text. None if the value is missing.

    Raises:
        RowProblem: the value is no number that float64 can hold.
    """
    value = plain(value)
    if value is None or isinstance(value, str) and not value.strip():
        return None
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = value.strip()
    elif not isinstance(value, int | float | Decimal):
        raise malformed(f"{name} is {shown(value)}, expected a number")
    try:
        return float(value)
    except (OverflowError, ValueError) as error:  # 400 digits; a signalling NaN
        raise malformed(f"{name} is {shown(value)}, expected a number") from error


def as_flag(value: Any, *, name: str) -> bool | None:
    """`value` as a truth value: true, yes, 1, false, no, 0, in upper or lower case. None if the value is missing.

    Raises:
        RowProblem: the value is none of these.
    """
    value = plain(value)
    if is_missing(value):
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        flag = FLAGS.get(value.strip().casefold())
    else:
        number = as_number(value, name=name)
        flag = bool(number) if number in (0, 1) else None
    if flag is None:
        raise malformed(f"{name} is {shown(value)}, expected true or false")
    return flag


def as_text(value: Any, *, name: str) -> str:
    """`value` as text that UTF-8 can encode; an empty string if the value is missing.

    Raises:
        RowProblem: the value is no text, or holds half a surrogate pair or bytes that are not UTF-8.
    """
    value = plain(value)
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if not isinstance(value, str):
        raise malformed(f"{name} is {shown(value)}, expected text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise malformed(f"{name} is no UTF-8 text (character {error.start} of {shown(value)})") from error
    return str(value)


def as_prompt(value: Any, *, name: str) -> str:
    """`value` as a prompt: text, or a conversation as TRL stores it, of which the user's last text is the prompt.

    Raises:
        RowProblem: the value is neither.
    """
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) for turn in value):
        texts = [text for turn in value if turn.get("role") == "user" for text in _texts_of(turn.get("content"))]
        if not texts:
            raise malformed(f"{name} is a conversation without a user's text: {shown(value)}")
        value = texts[-1]
    return as_text(value, name=name)


def _texts_of(content: Any) -> list[Any]:
    """The texts in the content of a message: one string, or a list of {"type": "text", "text": ...}."""
    if not isinstance(content, list):
        return [content]
    return [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]


def as_name(value: Any, *, name: str) -> str | None:
    """`value` as the name of a pair: text or a number. None if the value is missing.

    Raises:
        RowProblem: the value is a truth value, a list, bytes, or an integer of more than LONG_INT_BITS.
    """
    value = plain(value)
    if is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas turns integers into floats if one is missing
    if isinstance(value, bool | bytes | list | Mapping | Unreadable):
        raise malformed(f"{name} is {shown(value)}, expected text or a number")
    if isinstance(value, int) and value.bit_length() > LONG_INT_BITS:
        raise malformed(f"{name} is {shown(value)}, expected text or a number")
    return as_text(str(value), name=name)
