"""Diffusion-KTO (Li et al., NeurIPS 2024): single images, desirable or not, against a reference point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from smpo import maths
from smpo.core.checks import check_fraction, check_known, check_positive
from smpo.objectives.objective import Loss, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import PairErrors

UTILITIES = ("kahneman-tversky", "loss-averse", "risk-seeking")


@dataclass(frozen=True, kw_only=True)
class KTO(Objective):
    """Minus the utility of s beta (g - k), g = -(L - L_ref), s = +1 for shown winners and -1 for shown losers.

    k = max(0, mean of g) goes over all images of an optimizer step, in whatever micro-batches and processes. Meant with
    `noising.noise=independent`. An example shows one image of its pair; the paper's images come from a pool without
    pairs.

    Attributes:
        beta: > 0, *without* the 1/2 of the pairwise objectives; 1000 in the released code, 5000 in the paper.
        utility: "kahneman-tversky" (the paper's), "loss-averse" or "risk-seeking".
        winner_share: probability of showing the winner, in [0, 1]; 0.8 in the paper, 0.5 by default in the code.
    """

    beta: float = 1000.0
    utility: str = "kahneman-tversky"
    winner_share: float = 0.8
    needs_pool: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive(beta=self.beta)
        check_known(self.utility, UTILITIES, what="objective.utility")
        check_fraction(winner_share=self.winner_share)

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        """The loss of each image. Its logit s beta (g - k) is positive where the policy moved it to the right side."""
        if errors.pool is None:
            raise ValueError("KTO needs the rewards of the whole optimizer step as errors.pool, got none")
        point, reward = maths.utility.reference_point(errors.pool), maths.utility.implicit_reward(errors)
        logit = maths.utility.kto_logit(reward, p_winner, point, beta=self.beta)
        metrics = {"reference_point": point.expand_as(logit), "desirable_share": (p_winner > 0.5).to(logit)}
        return Loss(maths.utility.kto_loss(logit, utility=self.utility), logit, metrics)

    def pooled(self, errors: PairErrors) -> Tensor:
        """The implicit reward g of each image, shape (B,)."""
        return maths.utility.implicit_reward(errors).detach()
