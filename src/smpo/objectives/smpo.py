"""SmPO-Diffusion (Lu et al., ICML 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo import maths
from smpo.core.checks import check_positive
from smpo.objectives.objective import Loss
from smpo.objectives.pairwise import Pairwise

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import PairErrors


@dataclass(frozen=True, kw_only=True)
class SmPO(Pairwise):
    """The DPO margin weighted by 2 alpha - gamma (Eq. 15-16).

    Attributes:
        beta: code beta, > 0; 2000 for SD1.5, 5000 for SDXL.
        gamma: sensitivity, > 0; only beta * gamma matters (METHODS 18.3).
    """

    gamma: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(gamma=self.gamma)

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        """The loss of each pair."""
        margin = self.margin(errors)
        value = maths.preference.smpo_loss(margin, p_winner, beta=self.beta, gamma=self.gamma)
        return Loss(value, self.logit(margin, p_winner))

    def logit(self, margin: Tensor, p_winner: Tensor) -> Tensor:
        """Argument of the log-sigmoid, shape (B,); a useful run keeps it around 0.1 to 1."""
        weight = maths.smoothing.pair_weight(p_winner, gamma=self.gamma)
        return maths.preference.preference_logit(margin, weight, beta=self.beta)
