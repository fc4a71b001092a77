"""What labels share whose winner is named by people or by the reward model."""

from dataclasses import dataclass

from smpo.labels.label import Label
from smpo.labels.winner import check_judge


@dataclass(frozen=True, kw_only=True)
class WinnerLabel(Label):
    """`winner_by`: "reward", "human" (one person) or "votes" (the majority of several)."""

    winner_by: str = "reward"

    def __post_init__(self) -> None:
        check_judge(self.winner_by)

    @property
    def needs_human(self) -> bool:
        """Whether one person names the winner."""
        return self.winner_by == "human"

    @property
    def needs_votes(self) -> bool:
        """Whether a majority names the winner."""
        return self.winner_by == "votes"
