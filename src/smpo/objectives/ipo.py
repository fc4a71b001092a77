"""Identity Preference Optimisation (Azar et al., AISTATS 2024) of a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo import maths
from smpo.objectives.objective import Loss
from smpo.objectives.pairwise import Pairwise

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import PairErrors


@dataclass(frozen=True, kw_only=True)
class IPO(Pairwise):
    """(u - (p - 1/2))^2 with u = beta / 2 margin: regression of the margin on the label, so that it stays bounded.

    At the start its slope is twice DPO's of the same beta: -beta / 2 of a margin, there -beta / 4.

    Attributes:
        beta: code beta, > 0; diffusers' LoRA-DPO scripts with `loss_type=ipo` have beta_dpo = beta / 2.
    """

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        """The loss of each pair."""
        margin = self.margin(errors)
        return Loss(maths.preference.ipo_loss(margin, p_winner, beta=self.beta), self.logit(margin, p_winner))
