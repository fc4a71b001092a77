"""Tables from a name to a class given as "module:Class", resolved on use so that listing imports nothing."""

import dataclasses
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from smpo.core.checks import check_known, did_you_mean, listed
from smpo.core.errors import ConfigError
from smpo.core.flag_names import flag_hint

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Member:
    """A class whose module is slow to import, and the base class that holds its settings.

    Attributes:
        implementation: "module:Class" of what `build` gives.
        settings: "module:Class" of the dataclass from which it inherits all its fields and checks of values.
    """

    implementation: str
    settings: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The settings of a member that has none."""


class Registry(Mapping[str, str], Generic[T]):
    """A read-only table of one seam: name -> "module:Class". A recipe names a member and gives its settings.

    A member is a frozen, keyword-only dataclass whose fields are its settings. Its `__post_init__` raises ConfigError
    for a bad value. To add a member, write the class and one line in the table.

    Loading a recipe reads and checks settings, so that must import no torch. There are two ways:

    - The module of the class imports no torch at its top. Then the entry is the text "module:Class".
    - The module imports torch or transformers (a model family, a scorer). Then the fields and checks stand in a small
      dataclass in a module that imports neither, the class inherits from it and adds no field, and the entry is
      `Member("module:Class", settings="module:Settings")`. A member without settings uses `NoSettings` of this module.

    The type T is the protocol that every member fulfils; the room of the seam defines it, with its contract.
    """

    def __init__(self, kind: str, entries: Mapping[str, str | Member]) -> None:
        self.kind = kind
        self._entries = {
            name: Member(entry, settings=entry) if isinstance(entry, str) else entry for name, entry in entries.items()
        }

    def __getitem__(self, name: str) -> str:
        return self._member(name).implementation

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def resolve(self, name: str) -> Any:
        """The class that `name` stands for; ConfigError names the nearest entry when there is none."""
        return _imported(self._member(name).implementation)

    def settings_class(self, name: str) -> "type[DataclassInstance]":
        """The dataclass of the settings of `name`, imported without torch; errors as `resolve`."""
        settings: type[DataclassInstance] = _imported(self._member(name).settings)
        return settings

    def fields(self, name: str) -> list[str]:
        """The settings that the member `name` takes; errors as `resolve`."""
        return _settable(self.settings_class(name))

    def named(self, settings: Mapping[str, Any], *, section: str = "") -> str:
        """The member that `settings` name; ConfigError if they name none, or one that there is not.

        `section` is where they stand in a recipe, for messages; by default the kind.
        """
        if "name" not in settings:
            raise ConfigError(f"{section or self.kind}.name: required, but missing; known: {listed(self)}")
        name = settings["name"]
        self._member(name)
        return str(name)

    def build(self, settings: Mapping[str, Any], *, section: str = "") -> T:
        """The member named by `settings["name"]`, constructed from the other settings (strict: see `check_fields`).

        `section` is where they stand in a recipe, for messages; by default the kind.
        """
        member: T = self._constructed(self.resolve(self.named(settings, section=section)), settings, section)
        return member

    def checked(self, settings: Mapping[str, Any], *, section: str = "") -> "DataclassInstance":
        """The settings alone, complete and checked as by `build`, as an object of `settings_class`."""
        kind = self.settings_class(self.named(settings, section=section))
        checked: DataclassInstance = self._constructed(kind, settings, section)
        return checked

    def resolved(self, settings: Mapping[str, Any], *, section: str = "") -> dict[str, Any]:
        """`settings` completed with the defaults of the dataclass it names: what a resolved recipe shows."""
        checked = self.checked(settings, section=section)
        return {"name": settings["name"], **dataclasses.asdict(checked)}

    def _member(self, name: str) -> Member:
        check_known(name, self._entries, what=self.kind)
        return self._entries[name]

    def _constructed(self, kind: Any, settings: Mapping[str, Any], section: str) -> Any:
        """An object of the dataclass `kind`, from `settings` but for their name."""
        values, section = {key: value for key, value in settings.items() if key != "name"}, section or self.kind
        check_fields(kind, values, section=section)
        try:
            return TypeAdapter(kind).validate_python(values)
        except ValidationError as error:
            raise ConfigError(one_line(error, section=section)) from error


def check_fields(member: "type[DataclassInstance]", settings: Mapping[str, Any], *, section: str) -> None:
    """Raise ConfigError for a key of `settings` that is no init field of the dataclass `member`."""
    known = _settable(member)
    for key in settings:
        if key not in known:
            hint = flag_hint(key) or did_you_mean(key, known)
            raise ConfigError(f"{section}.{key}: unknown key; known: {listed(['name', *known])}.{hint}")


def _settable(kind: "type[DataclassInstance]") -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.init]


def _imported(place: str) -> Any:
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)


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
