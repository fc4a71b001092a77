"""What a recipe says of its model. Imports no torch, so that recipes load at once."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FamilySettings:
    """Where the model is.

    Attributes:
        source: diffusers folder, hub id, `package://` data or single file.
        revision: hub revision; None is the newest.
    """

    source: str
    revision: str | None = None
