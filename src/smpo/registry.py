"""Tables from a name to an object given as "module:attribute", resolved on use so that listing imports nothing."""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from smpo.checks import check_known, did_you_mean
from smpo.errors import ConfigError


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

    def build(self, settings: Mapping[str, Any]) -> Any:
        """The member named by `settings["name"]`, constructed from the other settings (strict: see `check_fields`)."""
        settings = dict(settings)
        if "name" not in settings:
            raise ConfigError(f"{self.kind}.name: required, but missing; known: {', '.join(self)}")
        member = self.resolve(settings.pop("name"))
        check_fields(member, settings, section=self.kind)
        try:
            return TypeAdapter(member).validate_python(settings)
        except ValidationError as error:
            raise ConfigError(one_line(error, section=self.kind)) from error

    def resolved(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """`settings` completed with the defaults of the dataclass it names: what a resolved recipe shows."""
        member = self.build(settings)
        return {"name": settings["name"], **dataclasses.asdict(member)}


def check_fields(member: Any, settings: Mapping[str, Any], *, section: str) -> None:
    """Raise ConfigError for a key of `settings` that is no init field of the dataclass `member`."""
    known = [field.name for field in dataclasses.fields(member) if field.init]
    for key in settings:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ConfigError(f"{section}.{key}: unknown key; known: {', '.join(['name', *known])}.{hint}")


def one_line(error: ValidationError, *, section: str) -> str:
    """The first complaint of a pydantic error as "section.key: message, got value"."""
    first = error.errors()[0]
    key = ".".join([section, *map(str, first["loc"])]).strip(".")
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return message
    if first["type"] == "missing":
        return f"{key}: required, but missing"
    given = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return f"{key}: {message}{given}"
