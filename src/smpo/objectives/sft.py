"""Supervised fine-tuning on the winners: the plain prediction error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from smpo.objectives.objective import Loss, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import PairErrors


@dataclass(frozen=True, kw_only=True)
class SFT(Objective):
    """L_w of each pair. Meant with forward noise: on inverted latents it is no denoising loss (METHODS D35)."""

    needs_reference: ClassVar[bool] = False
    winner_share = 1.0

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        """The winner's error; there is no preference logit."""
        return Loss(errors.policy_w)
