"""What the objectives over the implicit margin of a pair share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from smpo import maths
from smpo.core.checks import check_positive
from smpo.objectives.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import PairErrors


@dataclass(frozen=True, kw_only=True)
class Pairwise(Objective):
    """Both images of a pair, against a reference; `beta` is the code beta, > 0 (METHODS 1.2)."""

    beta: float = 2000.0
    takes_smoothed_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive(beta=self.beta)

    def margin(self, errors: PairErrors) -> Tensor:
        """The implicit margin of each pair, shape (B,)."""
        return maths.preference.implicit_margin(errors)

    def logit(self, margin: Tensor, p_winner: Tensor) -> Tensor:
        """beta / 2 margin towards the likelier image of the pair, shape (B,)."""
        return maths.preference.preference_logit(margin, (p_winner - 0.5).sign(), beta=self.beta)
