"""Tables from a name to an object given as "module:attribute", resolved on use so that listing imports nothing."""

import dataclasses
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from smpo.core.checks import check_known, did_you_mean, listed
from smpo.core.errors import ConfigError
from smpo.core.flag_names import flag_hint


class Registry(Mapping[str, str]):
    """A read-only table of one seam: name -> "module:attribute"."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        check_known(name, self._entries, what=self.kind)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def resolve(self, name: str) -> Any:
        """The object that `name` stands for; ConfigError names the nearest entry when there is none."""
        module, attribute = self[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def named(self, settings: Mapping[str, Any], *, section: str = "") -> str:
        """The member that `settings` name; ConfigError if they name none, or one that there is not.

        `section` is where they stand in a recipe, for messages; by default the kind.
        """
        if "name" not in settings:
            raise ConfigError(f"{section or self.kind}.name: required, but missing; known: {listed(self)}")
        check_known(settings["name"], self._entries, what=self.kind)
        return settings["name"]

    def build(self, settings: Mapping[str, Any], *, section: str = "") -> Any:
        """The member named by `settings["name"]`, constructed from the other settings (strict: see `check_fields`).

        `section` is where they stand in a recipe, for messages; by default the kind.
        """
        settings, section = dict(settings), section or self.kind
        member = self.resolve(self.named(settings, section=section))
        del settings["name"]
        check_fields(member, settings, section=section)
        try:
            return TypeAdapter(member).validate_python(settings)
        except ValidationError as error:
            raise ConfigError(one_line(error, section=section)) from error

    def resolved(self, settings: Mapping[str, Any], *, section: str = "") -> dict[str, Any]:
        """`settings` completed with the defaults of the dataclass it names: what a resolved recipe shows."""
        member = self.build(settings, section=section)
        return {"name": settings["name"], **dataclasses.asdict(member)}


def check_fields(member: Any, settings: Mapping[str, Any], *, section: str) -> None:
    """Raise ConfigError for a key of `settings` that is no init field of the dataclass `member`."""
    known = [field.name for field in dataclasses.fields(member) if field.init]
    for key in settings:
        if key not in known:
            hint = flag_hint(key) or did_you_mean(key, known)
            raise ConfigError(f"{section}.{key}: unknown key; known: {listed(['name', *known])}.{hint}")


KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list such as [a, b]"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "dataclass_type"), "keys such as {a: 1}"),
    "string_type": "a text", "finite_number": "a finite number",
}
BOUNDS = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", ">="), "less_than": ("lt", "<"),
          "less_than_equal": ("le", "<="), "multiple_of": ("multiple_of", "a multiple of")}
BRANCH = re.compile(r"(bool|int|float|str|none|NoneType)$|.*\[")  # how pydantic names an alternative of a union
SHOWN = 60  # characters of a value in a message


def one_line(error: ValidationError, *, section: str) -> str:
    """The first complaint of a pydantic error as "section.key: what it must be, got value", with a hint."""
    complaints = error.errors()
    first, place = complaints[0], _place(complaints[0]["loc"])
    key = ".".join([section, *place]).strip(".")
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    if first["type"] == "missing":
        return f"{key}: required, but missing"
    alternatives = dict.fromkeys(_demand(one) for one in complaints if _place(one["loc"]) == place)
    given, hint = first["input"], ""
    if first["type"] == "literal_error" and isinstance(given, str):
        hint = "." + did_you_mean(given, re.findall(r"'([^']*)'", first["ctx"]["expected"]))
    elif first["type"] == "string_type" and isinstance(given, bool | int | float) and len(alternatives) == 1:
        hint = "; put it in quotes"
    return f"{key}: must be {' or '.join(alternatives)}, got {_shown(given)}{hint.removesuffix('.')}".removeprefix(": ")


def _place(location: Sequence[str | int]) -> list[str]:
    return [str(part) for part in location if not BRANCH.match(str(part))]


def _demand(complaint: Any) -> str:
    """What a value must be."""
    kind, context = complaint["type"], complaint.get("ctx", {})
    if kind in BOUNDS:
        bound, sign = BOUNDS[kind]
        return f"{sign} {context[bound]:g}"
    if kind == "literal_error":
        return context["expected"]
    if kind == "string_pattern_mismatch":
        return f"a text of the pattern {context['pattern']}"
    return KINDS.get(kind) or complaint["msg"].removeprefix("Input should be ")


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
