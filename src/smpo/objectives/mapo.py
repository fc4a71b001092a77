"""MaPO, margin-aware preference optimisation (Hong et al. 2024): no reference model."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from smpo.core.checks import check_positive
from smpo.core.records import PairErrors
from smpo.maths.preference import mapo_loss, mapo_margin


@dataclass(frozen=True, kw_only=True)
class MaPO:
    """L_w - beta log sigmoid(T (f(L_w) - f(L_l))) with f(L) = sL / (e^{sL} - 1), as the released code has it.

    Attributes:
        beta: weight of the margin's loss against the winner's error, > 0; unlike everywhere else no KL strength.
        temperature: T, > 0.
        snr: s, the released `snr_value`, > 0.
    """

    beta: float = 0.1
    temperature: float = 1000.0
    snr: float = 0.5
    needs_reference: ClassVar[bool] = False
    needs_reference_point: ClassVar[bool] = False
    winner_share: ClassVar[float | None] = None
    takes_smoothed_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(beta=self.beta, temperature=self.temperature, snr=self.snr)

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Loss of each pair, shape (B,); `p_winner` is 1 by the check on `takes_smoothed_labels`."""
        return mapo_loss(errors, beta=self.beta, temperature=self.temperature, snr=self.snr)

    def logit(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """Argument of the log-sigmoid, shape (B,)."""
        return self.temperature * mapo_margin(errors, snr=self.snr)
