"""Binary labels: the winner counts fully, whatever the margin."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smpo.labels.judgements import Judgements
from smpo.labels.winner import winner_by
from smpo.labels.winner_label import WinnerLabel


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
        return winner_by(self.winner_by, judgements), torch.ones(len(judgements))
