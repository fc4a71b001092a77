"""The base of a recipe's sections: frozen, strict records whose fields are checked where they are defined."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen record that refuses unknown keys and explains each field in its description."""

    model_config = ConfigDict(extra="forbid", frozen=True)
