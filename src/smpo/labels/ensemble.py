"""Soft labels from several reward models: the mean of their probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo import maths
from smpo.labels.judgements import Judgements
from smpo.labels.scorers import ScorersLabel
from smpo.labels.smoothed import measured_range
from smpo.labels.winner import of_winner

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ensemble(ScorersLabel):
    """p = mean over scorers of Eq. 11-12's sigmoid((r_0 - r_1) / (max - min)), each with its own measured range.

    Image 0 wins if p >= 1/2. The units of a scorer do not change its weight. Where scorers disagree, p is near 1/2.

    Attributes:
        scorers: names of the recipe's score tables; none = all of them.
    """

    def score_ranges(self, judgements: Judgements) -> tuple[tuple[float, float], ...]:
        """(min, max) of each table's scores."""
        return tuple(map(measured_range, judgements.score_0, judgements.score_1))

    def ties(self, judgements: Judgements) -> Tensor:
        """Whether every scorer gives both images the same score, shape (B,), bool."""
        return (judgements.score_0 == judgements.score_1).all(dim=0)

    def __call__(self, judgements: Judgements) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner in [1/2, 1), (B,) float32); image 0 wins where p is 1/2."""
        scores_0, scores_1 = judgements.score_0, judgements.score_1
        ranges = self.score_ranges(judgements)
        p_0 = maths.smoothing.mean_smoothed_probability(scores_0, scores_1, ranges=ranges)
        p_1 = maths.smoothing.mean_smoothed_probability(scores_1, scores_0, ranges=ranges)
        winner = (p_1 > p_0).long()
        return winner, of_winner(winner, p_0, p_1)[0].float()
