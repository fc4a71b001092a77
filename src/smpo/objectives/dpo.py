"""Diffusion-DPO (Wallace et al., CVPR 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from smpo import maths
from smpo.objectives.objective import Loss
from smpo.objectives.pairwise import Pairwise

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import PairErrors


@dataclass(frozen=True, kw_only=True)
class DPO(Pairwise):
    """-log sigmoid(beta / 2 margin) with hard labels.

    Attributes:
        beta: code beta, > 0; 2000 for SD1.5 in the paper, 5000 in the released launchers.
    """

    takes_smoothed_labels: ClassVar[bool] = False

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        """The loss of each pair."""
        margin = self.margin(errors)
        return Loss(maths.preference.dpo_loss(margin, beta=self.beta), self.logit(margin, p_winner))

    def logit(self, margin: Tensor, p_winner: Tensor) -> Tensor:
        """Argument of the log-sigmoid, shape (B,); p_winner is 1 by the check on `takes_smoothed_labels`."""
        return maths.preference.preference_logit(margin, p_winner.new_ones(p_winner.shape), beta=self.beta)
