"""Smoothed labels from a reward model's scores (Eq. 11-12)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from smpo.labels.winner import check_judge, winner_by_human, winner_by_reward
from smpo.maths.smoothing import smoothed_probability


@dataclass(frozen=True, kw_only=True)
class Smoothed:
    """p_winner = sigmoid((r_w - r_l) / (max - min)): pairs that the reward model finds alike weigh little.

    Attributes:
        winner_by: "reward" (paper), or "human"; then p_winner < 1/2 where the reward model disagrees.
        score_range: (min, max) of the scores; None measures it over the pairs labelled (METHODS D5). The released code
            hard-wires PickScore's (0.11543526500463486, 0.28201571106910706).
    """

    winner_by: str = "reward"
    score_range: tuple[float, float] | None = None
    needs_scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_judge(self.winner_by)

    @property
    def needs_human(self) -> bool:
        """Whether human labels must exist."""
        return self.winner_by == "human"

    def range_used(self, score_0: Tensor, score_1: Tensor) -> tuple[float, float]:
        """(min, max) that scales the scores: the given one, or that of the data."""
        if self.score_range is not None:
            return self.score_range
        scores = torch.cat([score_0, score_1])
        return scores.min().item(), scores.max().item()

    def __call__(self, score_0: Tensor, score_1: Tensor, human_label: Tensor) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner = alpha / gamma (B,) float32)."""
        winner = winner_by_human(human_label) if self.needs_human else winner_by_reward(score_0, score_1)
        score_w = torch.where(winner == 0, score_0, score_1)
        score_l = torch.where(winner == 0, score_1, score_0)
        score_min, score_max = self.range_used(score_0, score_1)
        return winner, smoothed_probability(score_w, score_l, score_min=score_min, score_max=score_max).float()
