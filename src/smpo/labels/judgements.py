"""What is known about pairs before they get labels: scores, one person's choice, and votes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo.core.checks import check_batch, check_same_shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Judgements:
    """Scores and people's choices of B pairs, float64; NaN where a choice is missing.

    Attributes:
        score_0: score of image 0 in each of the M score tables that the label reads, shape (M, B); M is 0 for a label
            that reads none.
        score_1: score of image 1, shape (M, B).
        human_label: one person's choice: 1 = image 0, 0 = image 1, 0.5 = tie, shape (B,).
        vote_share_0: share of people's votes for image 0, in [0, 1], shape (B,).
    """

    score_0: Tensor
    score_1: Tensor
    human_label: Tensor
    vote_share_0: Tensor

    def __post_init__(self) -> None:
        check_batch(human_label=self.human_label, vote_share_0=self.vote_share_0)
        check_same_shape(score_0=self.score_0, score_1=self.score_1)
        if self.score_0.shape[1:] != self.human_label.shape:
            raise ValueError(
                f"score_0 must have shape (M, {len(self)}), got {tuple(self.score_0.shape)}; pass a row per score table"
            )

    def __len__(self) -> int:
        return len(self.human_label)

    @property
    def people(self) -> Tensor:
        """Share of people who prefer image 0: the votes' where there are votes, else one person's, shape (B,)."""
        return self.vote_share_0.where(~self.vote_share_0.isnan(), self.human_label)

    def rows(self, index: Tensor) -> Judgements:
        """The judgements of the pairs `index`, shape (n,) integer or (B,) boolean."""
        return Judgements(
            self.score_0[:, index], self.score_1[:, index], self.human_label[index], self.vote_share_0[index]
        )
