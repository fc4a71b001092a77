"""Seam 2: how the images of a batch become noised latents with targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from smpo.core.records import NoisyPair, Predict, TrainingBatch
    from smpo.maths.path import GaussianPath

NETWORKS = ("policy", "reference")


class Noising(Protocol):
    """A frozen dataclass of settings: (predict, batch, path) -> NoisyPair.

    Every row is a function of its own example: a batch gives what its rows give alone. Latents, targets and timesteps
    of a result belong together: the timesteps are those at which `x_t` lies, and the targets are the path's.
    Importing a member imports no PyTorch.

    Attributes:
        network: which network predicts, "policy" or "reference"; None where none does.
        chain_length: so many rows in a row belong together: one pair with the same draws, at rising timesteps.
        path_kinds: the kinds of path (`GaussianPath.kind`) that it fits.
    """

    @property
    def network(self) -> str | None: ...  # noqa: D102

    @property
    def chain_length(self) -> int: ...  # noqa: D102

    @property
    def path_kinds(self) -> tuple[str, ...]: ...  # noqa: D102

    def __call__(self, predict: Predict, batch: TrainingBatch, path: GaussianPath) -> NoisyPair:
        """The noised batch, without gradient; the caller has switched gradients off.

        Args:
            predict: the output of the network `network`, in eval mode.
            batch: B examples.
            path: of the model.
        """
        ...
