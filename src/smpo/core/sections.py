"""The base class of a recipe's sections."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen pydantic model that refuses unknown keys; each field has its constraints and a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


def only(kind: type[S], section: Section) -> S:
    """The fields of `section` that `kind`, a base class of its class, has, as a record of that class itself."""
    return kind(**{name: getattr(section, name) for name in kind.model_fields})
