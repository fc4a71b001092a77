"""Diffusion-DPO (Wallace et al., CVPR 2024)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from smpo.core.records import PairErrors
from smpo.maths.preference import dpo_loss, implicit_margin, preference_logit
from smpo.objectives.pairwise import Pairwise


@dataclass(frozen=True, kw_only=True)
class DPO(Pairwise):
    """-log sigmoid(beta / 2 margin) with hard labels.

    Attributes:
        beta: code beta, > 0; 2000 for SD1.5 in the paper, 5000 in the released launchers.
    """

    takes_smoothed_labels: ClassVar[bool] = False

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Loss of each pair, shape (B,); `p_winner` is 1 by the check on `takes_smoothed_labels`."""
        return dpo_loss(implicit_margin(errors), beta=self.beta)

    def logit(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Argument of the log-sigmoid, shape (B,)."""
        return preference_logit(implicit_margin(errors), torch.ones_like(p_winner), beta=self.beta)
