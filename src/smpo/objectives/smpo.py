"""SmPO-Diffusion (Lu et al., ICML 2025)."""

from dataclasses import dataclass

from torch import Tensor

from smpo.core.checks import check_positive
from smpo.core.records import PairErrors
from smpo.maths.preference import implicit_margin, preference_logit, smpo_loss
from smpo.maths.smoothing import pair_weight
from smpo.objectives.pairwise import Pairwise


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

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Loss of each pair, shape (B,)."""
        return smpo_loss(implicit_margin(errors), p_winner, beta=self.beta, gamma=self.gamma)

    def logit(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Argument of the log-sigmoid, shape (B,); a useful run keeps it around 0.1 to 1."""
        return preference_logit(implicit_margin(errors), pair_weight(p_winner, gamma=self.gamma), beta=self.beta)
