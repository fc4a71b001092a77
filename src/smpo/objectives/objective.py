"""Seam 3: the loss of an example from the errors of its images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import PairErrors


@dataclass(frozen=True)
class Loss:
    """What an objective gives for B examples.

    Attributes:
        value: the loss of each, shape (B,), with its graph.
        logit: what it squashes, positive where the policy agrees with the label, shape (B,); None where it has none.
        metrics: further values to log, shape (B,) each; their means over the optimizer step are logged.
    """

    value: Tensor
    logit: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(ABC):
    """A frozen dataclass of hyper-parameters: (errors, p_winner) -> Loss. Importing a member imports no PyTorch.

    The loss of an example depends on its own errors and label, and on the pool where `needs_pool` is set: a batch gives
    what its examples give alone.

    Attributes:
        needs_reference: whether the reference's errors are computed.
        needs_pool: whether the errors must carry `pool`, the values of `pooled` over the whole optimizer step.
        takes_smoothed_labels: whether p_winner may be other than certain.
        winner_share: None where an example shows both images of its pair; else it shows one, the winner with this
            probability.
    """

    needs_reference: ClassVar[bool] = True
    needs_pool: ClassVar[bool] = False
    takes_smoothed_labels: ClassVar[bool] = False
    winner_share: float | None = None

    @property
    def unit(self) -> str:
        """What a batch counts: "pairs", or "images" where an example shows one image of its pair."""
        return "pairs" if self.winner_share is None else "images"

    def needs_reference_model(self, inverting: str | None) -> bool:
        """Whether training asks a reference for its errors, or to invert.

        Args:
            inverting: `Noising.network`.
        """
        return self.needs_reference or inverting == "reference"

    @abstractmethod
    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        """The loss of each example.

        Args:
            errors: of the images that each example shows.
            p_winner: probability of the first image being the better of its pair, shape (B,); see `TrainingBatch`.
        """

    def pooled(self, errors: PairErrors) -> Tensor:
        """What `needs_pool` pools, shape (B,), without gradient.

        Raises:
            NotImplementedError: the objective pools nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} pools nothing")
