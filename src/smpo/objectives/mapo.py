"""MaPO, margin-aware preference optimisation (Hong et al. 2024): no reference model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from smpo import maths
from smpo.core.checks import check_positive
from smpo.objectives.objective import Loss, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import PairErrors


@dataclass(frozen=True, kw_only=True)
class MaPO(Objective):
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

    def __post_init__(self) -> None:
        check_positive(beta=self.beta, temperature=self.temperature, snr=self.snr)

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        """The loss of each pair; p_winner is 1 by the check on `takes_smoothed_labels`."""
        value = maths.preference.mapo_loss(errors, beta=self.beta, temperature=self.temperature, snr=self.snr)
        return Loss(value, self.temperature * maths.preference.mapo_margin(errors, snr=self.snr))
