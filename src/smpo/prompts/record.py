"""The record of a prompt."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Prompt:
    """One prompt of a list.

    Attributes:
        text: the prompt itself.
        category: its kind: PartiPrompts' Category, HPDv2's style or GenEval's tag; None if unknown.
        challenge: why it is hard: PartiPrompts' Challenge; None if unknown.
    """

    text: str
    category: str | None = None
    challenge: str | None = None

    def labels(self) -> dict[str, str]:
        """Category and challenge, those that are known."""
        return {name: value for name, value in asdict(self).items() if name != "text" and value is not None}
