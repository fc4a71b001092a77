"""What a model is asked to paint."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Prompt:
    """One prompt of a list.

    Attributes:
        text: what the image is to show.
        category: what kind of prompt it is: PartiPrompts' Category, HPDv2's style, GenEval's tag; None where unknown.
        challenge: what makes it hard: PartiPrompts' Challenge; None where unknown.
    """

    text: str
    category: str | None = None
    challenge: str | None = None

    def labels(self) -> dict[str, str]:
        """Its category and challenge, as far as it has them."""
        return {name: value for name, value in asdict(self).items() if name != "text" and value is not None}
