"""Smoothed labels from a reward model's scores (Eq. 11-12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo import maths
from smpo.core.checks import check_known
from smpo.labels.judgements import Judgements
from smpo.labels.winner import WinnerLabel, of_winner

if TYPE_CHECKING:
    from torch import Tensor

LINKS = ("sigmoid", "linear")


@dataclass(frozen=True, kw_only=True)
class Smoothed(WinnerLabel):
    """p_winner = sigmoid((r_w - r_l) / (max - min)): a pair with nearly equal scores gets nearly 1/2.

    Attributes:
        winner_by: "reward" (paper), or "human" or "votes"; then p_winner < 1/2 where the reward model disagrees.
            This choice changes no loss, weight or gradient: exchanging the images of a pair and replacing p_winner by
            1 - p_winner gives the same loss under every objective. It changes what `error_w` and `implicit_accuracy`
            count, which are logged.
        score_range: (min, max) of the scores; None measures it over the pairs labelled (METHODS D5). The released code
            has PickScore's as constants: (0.11543526500463486, 0.28201571106910706).
        link: "sigmoid" (paper), or "linear", its tangent: the weight of a pair is proportional to the score gap.
    """

    score_range: tuple[float, float] | None = None
    link: str = "sigmoid"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known(self.link, LINKS, what="labels.link")

    @property
    def needs_scores(self) -> bool:
        """Always."""
        return True

    def score_ranges(self, judgements: Judgements) -> tuple[tuple[float, float], ...]:
        """(min, max) that scales the scores: the given one, or that of the data."""
        if self.score_range is not None:
            return (self.score_range,)
        return (measured_range(judgements.score_0[0], judgements.score_1[0]),)

    def __call__(self, judgements: Judgements) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner = alpha / gamma (B,) float32)."""
        winner = self.winner(judgements)
        score_w, score_l = of_winner(winner, judgements.score_0[0], judgements.score_1[0])
        ((score_min, score_max),) = self.score_ranges(judgements)
        link = maths.smoothing.smoothed_probability if self.link == "sigmoid" else maths.smoothing.linear_probability
        return winner, link(score_w, score_l, score_min=score_min, score_max=score_max).float()


def measured_range(score_0: Tensor, score_1: Tensor) -> tuple[float, float]:
    """(min, max) of the scores of both images of all pairs; NaN if any score is."""
    return score_0.minimum(score_1).min().item(), score_0.maximum(score_1).max().item()
