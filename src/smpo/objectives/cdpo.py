"""Conservative DPO (Mitchell 2023): Diffusion-DPO for labels that may be wrong."""

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
class ConservativeDPO(Pairwise):
    """-p log sigmoid(u) - (1 - p) log sigmoid(-u) with u = beta / 2 margin; p = 1 is DPO.

    Attributes:
        beta: code beta, > 0, as DPO's.
    """

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        """The loss of each pair."""
        margin = self.margin(errors)
        return Loss(maths.preference.cdpo_loss(margin, p_winner, beta=self.beta), self.logit(margin, p_winner))
