"""Smoothed labels from a reward model's scores (Eq. 11-12)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smpo.core.checks import check_known
from smpo.labels.judgements import Judgements
from smpo.labels.winner import of_winner, winner_by
from smpo.labels.winner_label import WinnerLabel
from smpo.maths.smoothing import linear_probability, smoothed_probability

LINKS = {"sigmoid": smoothed_probability, "linear": linear_probability}


@dataclass(frozen=True, kw_only=True)
class Smoothed(WinnerLabel):
    """p_winner = sigmoid((r_w - r_l) / (max - min)): pairs that the reward model finds alike weigh little.

    Attributes:
        winner_by: "reward" (paper), or "human" or "votes"; then p_winner < 1/2 where the reward model disagrees.
            That turns pair and p_winner round together, which no objective notices: losses, weights and
            gradients stay. It says whose judgement `error_w` and `implicit_accuracy` are counted by.
        score_range: (min, max) of the scores; None measures it over the pairs labelled (METHODS D5). The released code
            hard-wires PickScore's (0.11543526500463486, 0.28201571106910706).
        link: "sigmoid" (paper), or "linear": its tangent, with a weight exactly proportional to the reward gap.
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
        winner = winner_by(self.winner_by, judgements)
        score_w, score_l = of_winner(winner, judgements.score_0[0], judgements.score_1[0])
        ((score_min, score_max),) = self.score_ranges(judgements)
        return winner, LINKS[self.link](score_w, score_l, score_min=score_min, score_max=score_max).float()


def measured_range(score_0: Tensor, score_1: Tensor) -> tuple[float, float]:
    """(min, max) over both images of all pairs."""
    scores = torch.cat([score_0, score_1])
    return scores.min().item(), scores.max().item()
