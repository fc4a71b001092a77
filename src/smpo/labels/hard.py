"""Binary labels: the winner counts fully, whatever the margin."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smpo.labels.winner import check_judge, winner_by_human, winner_by_reward


@dataclass(frozen=True, kw_only=True)
class Hard:
    """p_winner = 1 for every pair, as in Diffusion-DPO.

    Attributes:
        winner_by: "human" or "reward".
    """

    winner_by: str = "human"

    def __post_init__(self) -> None:
        check_judge(self.winner_by)

    @property
    def needs_scores(self) -> bool:
        """Whether a score table must exist."""
        return self.winner_by == "reward"

    @property
    def needs_human(self) -> bool:
        """Whether human labels must exist."""
        return self.winner_by == "human"

    def range_used(self, score_0: Tensor, score_1: Tensor) -> None:
        """No score range enters a hard label."""

    def __call__(self, score_0: Tensor, score_1: Tensor, human_label: Tensor) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner (B,) float32, all ones)."""
        winner = winner_by_human(human_label) if self.needs_human else winner_by_reward(score_0, score_1)
        return winner, torch.ones(len(winner))
