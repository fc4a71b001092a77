"""The base class of a recipe's sections."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen pydantic model that refuses unknown keys; each field has its constraints and a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)
