"""What is known of the pairs that get labels: scores, one person's choice, shares of votes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smpo.core.checks import check_batch, check_same_shape


@dataclass(frozen=True)
class Judgements:
    """All judgements of B pairs, by M score tables and by people; NaN where there is none.

    Attributes:
        score_0: score of image 0 by each table that the label reads, row 0 by the recipe's own scorer, shape (M, B),
            float64; M is 0 for a label that reads none.
        score_1: score of image 1, shape (M, B), float64.
        human_label: label_0: 1 = image 0 preferred, 0 = image 1 preferred, 0.5 = tie, shape (B,), float64.
        p_win: share of people's votes that image 0 got, in [0, 1], shape (B,), float64.
    """

    score_0: Tensor
    score_1: Tensor
    human_label: Tensor
    p_win: Tensor

    def __post_init__(self) -> None:
        check_batch(human_label=self.human_label, p_win=self.p_win)
        check_same_shape(score_0=self.score_0, score_1=self.score_1)
        if self.score_0.shape[1:] != self.human_label.shape:
            raise ValueError(
                f"score_0 must have shape (M, {len(self)}), got {tuple(self.score_0.shape)}; pass a row per score table"
            )

    def __len__(self) -> int:
        return len(self.human_label)

    @property
    def people(self) -> Tensor:
        """Share of people who prefer image 0: of the votes, or of one person where no votes are known, shape (B,)."""
        return torch.where(self.p_win.isnan(), self.human_label, self.p_win)

    def rows(self, index: Tensor) -> "Judgements":
        """The judgements of the pairs `index`, shape (n,) integer or (B,) boolean."""
        return Judgements(
            self.score_0[:, index], self.score_1[:, index], self.human_label[index], self.p_win[index]
        )
