"""What the objectives over the implicit margin of a pair share."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from smpo.core.checks import check_positive
from smpo.core.records import PairErrors
from smpo.maths.preference import implicit_margin, preference_logit


@dataclass(frozen=True, kw_only=True)
class Pairwise:
    """Both images of a pair, against a reference; `beta` is the code beta, > 0 (METHODS 1.2)."""

    beta: float = 2000.0
    needs_reference: ClassVar[bool] = True
    needs_reference_point: ClassVar[bool] = False
    winner_share: ClassVar[float | None] = None
    takes_smoothed_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive(beta=self.beta)

    def logit(self, errors: PairErrors, p_winner: Tensor) -> Tensor:
        """beta / 2 margin towards the likelier image of the pair, shape (B,)."""
        return preference_logit(implicit_margin(errors), torch.sign(p_winner - 0.5), beta=self.beta)
