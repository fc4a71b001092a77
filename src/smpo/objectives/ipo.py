"""Identity Preference Optimisation (Azar et al., AISTATS 2024) of a diffusion model."""

from dataclasses import dataclass

from torch import Tensor

from smpo.core.records import PairErrors
from smpo.maths.preference import implicit_margin, ipo_loss
from smpo.objectives.pairwise import Pairwise


@dataclass(frozen=True, kw_only=True)
class IPO(Pairwise):
    """(u - (p - 1/2))^2 with u = beta / 2 margin: regression of the margin on the label, so that it stays bounded.

    At the start its slope is twice DPO's of the same beta: -beta / 2 of a margin, there -beta / 4.

    Attributes:
        beta: code beta, > 0; diffusers' LoRA-DPO scripts with `loss_type=ipo` have beta_dpo = beta / 2.
    """

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Loss of each pair, shape (B,)."""
        return ipo_loss(implicit_margin(errors), p_winner, beta=self.beta)
