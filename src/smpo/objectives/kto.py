"""Diffusion-KTO (Li et al., NeurIPS 2024): single images, desirable or not, against a reference point."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from smpo.core.checks import check_fraction, check_known, check_positive
from smpo.core.records import PairErrors
from smpo.maths.utility import UTILITIES, implicit_reward, kto_logit, kto_loss


@dataclass(frozen=True, kw_only=True)
class KTO:
    """Minus the utility of s beta (g - k), g = -(L - L_ref), s = +1 for shown winners and -1 for shown losers.

    k = max(0, mean of g), given in the errors, goes over all images of an optimizer step, in whatever micro-batches and
    processes. Meant with `noising.noise=independent`. An example shows one image of its pair; the paper's images come
    from a pool without pairs.

    Attributes:
        beta: > 0, *without* the 1/2 of the pairwise objectives; 1000 in the released code, 5000 in the paper.
        utility: "kahneman-tversky" (the paper's), "loss-averse" or "risk-seeking".
        winner_share: probability of showing the winner, in [0, 1]; 0.8 in the paper, 0.5 by default in the code.
    """

    beta: float = 1000.0
    utility: str = "kahneman-tversky"
    winner_share: float = 0.8
    needs_reference: ClassVar[bool] = True
    needs_reference_point: ClassVar[bool] = True
    takes_smoothed_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(beta=self.beta)
        check_known(self.utility, UTILITIES, what="objective.utility")
        check_fraction(winner_share=self.winner_share)

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Loss of each image, shape (B,)."""
        return kto_loss(self.logit(errors, p_winner), utility=self.utility)

    def logit(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """s beta (g - k), shape (B,): positive where the policy moved the image to the right side of the point."""
        if errors.reference_point is None:
            raise ValueError("KTO needs the reference point of the optimizer step, got none")
        return kto_logit(implicit_reward(errors), p_winner, errors.reference_point, beta=self.beta)
