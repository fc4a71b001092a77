"""Hard labels: p_winner is 1, whatever the margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo.labels.judgements import Judgements
from smpo.labels.winner import WinnerLabel, certain

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Hard(WinnerLabel):
    """p_winner = 1 for every pair, as in Diffusion-DPO.

    Attributes:
        winner_by: "human" (one person), "votes" (the majority of several) or "reward".
    """

    winner_by: str = "human"

    @property
    def needs_scores(self) -> bool:
        """Whether the reward model names the winner."""
        return self.winner_by == "reward"

    @property
    def is_smoothed(self) -> bool:
        """Never."""
        return False

    def __call__(self, judgements: Judgements) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner (B,) float32, all ones)."""
        winner = self.winner(judgements)
        return winner, certain(winner)
