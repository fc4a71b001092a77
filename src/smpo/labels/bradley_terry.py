"""Soft labels from a reward model whose scores are calibrated to people's choices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from smpo import maths
from smpo.core.checks import check_positive
from smpo.core.errors import ConfigError
from smpo.labels.judgements import Judgements
from smpo.labels.winner import WinnerLabel, of_winner

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BradleyTerry(WinnerLabel):
    """p_winner = sigmoid((r_w - r_l) / scale): the share of people that the scores predict to prefer the winner.

    Attributes:
        winner_by: "reward", or "human" or "votes"; then p_winner < 1/2 where the reward model disagrees. As with the
            label `smoothed`, this choice changes no loss, weight or gradient.
        scale: score gap at which the odds are e to 1, > 0; None: `smpo label` fits it to people's choices of the pair
            set. PickScore was trained with 0.01 for its cosines (a logit scale of 100).
    """

    scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None:
            check_positive(scale=self.scale)

    @property
    def needs_scores(self) -> bool:
        """Always."""
        return True

    @property
    def needs_scale(self) -> bool:
        """Whether none is given."""
        return self.scale is None

    def with_scale(self, scale: float) -> Self:
        """The same label with `scale`."""
        return replace(self, scale=scale)

    def __call__(self, judgements: Judgements) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner = alpha / gamma (B,) float32).

        Raises:
            ConfigError: the scale is neither given nor fitted.
        """
        if self.scale is None:
            raise ConfigError("labels.scale is not fitted yet, got none; give it, or let `smpo label` fit it")
        winner = self.winner(judgements)
        score_w, score_l = of_winner(winner, judgements.score_0[0], judgements.score_1[0])
        return winner, maths.smoothing.bradley_terry_probability(score_w, score_l, scale=self.scale).float()
