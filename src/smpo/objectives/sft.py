"""Supervised fine-tuning on the winners: the plain noise-prediction error."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from smpo.core.records import PairErrors


@dataclass(frozen=True, kw_only=True)
class SFT:
    """L_w of each pair. Meant with forward noise: on inverted latents it is no denoising loss (METHODS D35)."""

    needs_reference: ClassVar[bool] = False
    needs_reference_point: ClassVar[bool] = False
    winner_share: ClassVar[float | None] = 1.0
    takes_smoothed_labels: ClassVar[bool] = False

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Loss of each pair, shape (B,): the winner's error."""
        return errors.policy_w

    def logit(self, errors: PairErrors, p_winner: Tensor) -> None:
        """None: there is no preference logit."""
