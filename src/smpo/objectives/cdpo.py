"""Conservative DPO (Mitchell 2023): Diffusion-DPO for labels that may be wrong."""

from dataclasses import dataclass

from torch import Tensor

from smpo.core.records import PairErrors
from smpo.maths.preference import cdpo_loss, implicit_margin
from smpo.objectives.pairwise import Pairwise


@dataclass(frozen=True, kw_only=True)
class ConservativeDPO(Pairwise):
    """-p log sigmoid(u) - (1 - p) log sigmoid(-u) with u = beta / 2 margin; p = 1 is DPO.

    Attributes:
        beta: code beta, > 0, as DPO's.
    """

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Loss of each pair, shape (B,)."""
        return cdpo_loss(implicit_margin(errors), p_winner, beta=self.beta)
