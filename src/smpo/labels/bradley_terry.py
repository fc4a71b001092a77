"""Smoothed labels from a reward model calibrated to what people chose."""

from dataclasses import dataclass

from torch import Tensor

from smpo.core.checks import check_positive
from smpo.core.errors import ConfigError
from smpo.labels.judgements import Judgements
from smpo.labels.winner import of_winner, winner_by
from smpo.labels.winner_label import WinnerLabel
from smpo.maths.smoothing import bradley_terry_probability


@dataclass(frozen=True, kw_only=True)
class BradleyTerry(WinnerLabel):
    """p_winner = sigmoid((r_w - r_l) / scale): the share of people who agree, as the scores predict it.

    Attributes:
        winner_by: "reward", or "human" or "votes"; then p_winner < 1/2 where the reward model disagrees.
            That turns pair and p_winner round together, which no objective notices: losses, weights and
            gradients stay. It says whose judgement `error_w` and `implicit_accuracy` are counted by.
        scale: gap of scores that makes odds of e to 1, > 0; None is fitted to the people's choices of the pair set
            itself. PickScore was trained with 0.01 on its cosines (a logit scale of 100).
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

    def __call__(self, judgements: Judgements) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner = alpha / gamma (B,) float32).

        Raises:
            ConfigError: the scale is neither given nor fitted.
        """
        if self.scale is None:
            raise ConfigError("labels.scale is not fitted yet, got none; give it, or let `smpo label` fit it")
        winner = winner_by(self.winner_by, judgements)
        score_w, score_l = of_winner(winner, judgements.score_0[0], judgements.score_1[0])
        return winner, bradley_terry_probability(score_w, score_l, scale=self.scale).float()
