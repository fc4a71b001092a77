"""The seam between the trainer and a method of learning."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Sums = Mapping[str, tuple[Tensor, Tensor]]
"""Name of a metric -> its sum over examples and the number of examples that it is a mean of, both of shape ()."""

Pool = Callable[[Tensor], Tensor]
"""Values of this micro-batch -> those of the whole optimizer step: of all its micro-batches, on all processes."""


@dataclass(frozen=True)
class Networks:
    """The networks of a run on this process.

    Attributes:
        policy: the trained denoiser, perhaps wrapped for distribution; called once a micro-batch, with gradient.
        bare_policy: the same weights without the wrapper, for all that needs no gradient.
        reference: the frozen denoiser; None where the learner needs none.
        autocast: makes the precision context; all networks share it (METHODS D37).
    """

    policy: nn.Module
    bare_policy: nn.Module
    reference: nn.Module | None
    autocast: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class StepOutput:
    """The results of a micro-batch.

    Attributes:
        loss: of each example, shape (B,), float32, with its graph.
        sums: what is logged, with the same names in every step.
    """

    loss: Tensor
    sums: Sums


class Learner(Protocol):
    """How a batch becomes a loss. The trainer knows no more of a method than this.

    Attributes:
        needs_reference_model: whether a frozen copy of the start is held.
        varying_passes: "policy" or "reference" where that network makes a number of passes in `prepare` that depends on
            the batch; None where all processes make equally many.
        needs_pool: whether the loss of an example depends on the whole optimizer step.
    """

    @property
    def needs_reference_model(self) -> bool: ...  # noqa: D102

    @property
    def varying_passes(self) -> str | None: ...  # noqa: D102

    @property
    def needs_pool(self) -> bool: ...  # noqa: D102

    def prepare(self, batch: Any, networks: Networks) -> Any:
        """All that needs no gradient of the policy; the result has `batch`."""
        ...

    def pooled(self, prepared: Any, networks: Networks) -> Tensor:
        """What `needs_pool` asks for, computed ahead of the step without gradient, shape (B,)."""
        ...

    def loss(self, prepared: Any, networks: Networks, pool: Pool) -> StepOutput:
        """One pass of the policy with gradient, and the loss.

        Args:
            prepared: what `prepare` gave.
            networks: of this process.
            pool: asked where `needs_pool` is set.
        """
        ...

    def summarise(self, means: dict[str, float]) -> dict[str, float]:
        """What is logged, from the means of the sums of all micro-batches and processes; no mean is of nothing."""
        ...
