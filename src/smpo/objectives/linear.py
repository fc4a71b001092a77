"""Linear-DPO (arXiv 2605.21123) as its published code has it: DPO's slope replaced by a clipped line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo import maths
from smpo.core.errors import ConfigError
from smpo.objectives.objective import Loss
from smpo.objectives.pairwise import Pairwise

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import PairErrors


@dataclass(frozen=True, kw_only=True)
class Linear(Pairwise):
    """clip(1/2 - 0.2 beta margin, eta, 1 - eta) (L_w - L_l), the first factor without gradient.

    The method's other half, a reference that follows the policy, is `training.reference_ema_decay`, open to every
    objective. Three departures: the reference moves after the optimizer's step (the code moves it before), errors are
    float32 (its SD3 script squares them in half precision), and soft labels are taken (see `linear_loss`).

    Attributes:
        beta: code beta, > 0; 100 in the code's SD1.5 script, 500 in its SDXL one. It only says where the line is cut.
        eta: smallest slope, in [0, 1/2]; 1e-3 and 0 there.
    """

    beta: float = 100.0
    eta: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 0.5:
            raise ConfigError(f"objective.eta must lie in [0, 0.5], got {self.eta}")

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        """The loss of each pair."""
        value = maths.preference.linear_loss(errors, p_winner, beta=self.beta, eta=self.eta)
        return Loss(value, self.logit(self.margin(errors), p_winner))
