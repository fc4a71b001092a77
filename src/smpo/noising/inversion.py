"""Noising by the latent that the model itself would pass through: few-step inversion, landing exactly on t."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from smpo import maths
from smpo.core.checks import check_known
from smpo.core.errors import ConfigError
from smpo.core.records import flatten_sides, unflatten_sides
from smpo.noising.latents import DIFFUSION, guided, pair_at
from smpo.noising.noising import NETWORKS

if TYPE_CHECKING:
    from smpo.core.records import NoisyPair, Predict, TrainingBatch
    from smpo.maths.inversion import Refine
    from smpo.maths.path import GaussianPath

GRIDS = ("subdivide", "fixed_stride")


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """What the inversions share; the subclasses name the refinement.

    Attributes:
        inversion_steps: steps from clean to t, at most, >= 1.
        grid: "subdivide" (every sample takes all steps) or "fixed_stride" (about half on average; the paper's).
        inversion_cfg: guidance scale; 1 = conditional prediction only.
        network: which network inverts, "policy" (paper) or "reference".
    """

    inversion_steps: int = 9
    grid: str = "fixed_stride"
    inversion_cfg: float = 1.0
    network: str = "policy"
    refine: ClassVar[str]
    chain_length: ClassVar[int] = 1
    path_kinds: ClassVar[tuple[str, ...]] = (DIFFUSION,)

    def __post_init__(self) -> None:
        check_known(self.grid, GRIDS, what="noising.grid")
        check_known(self.network, NETWORKS, what="noising.network")
        if self.inversion_steps < 1:
            raise ConfigError(f"noising.inversion_steps must be >= 1, got {self.inversion_steps}")

    def __call__(self, predict: Predict, batch: TrainingBatch, path: GaussianPath) -> NoisyPair:
        """The inverted batch and its targets (tau_t of Eq. 16), at the levels where the latents lie."""
        sides, x_0 = batch.x_0.shape[0], flatten_sides(batch.x_0)
        levels = maths.inversion.inversion_levels(
            batch.timesteps.repeat(sides), num_steps=self.inversion_steps, grid=self.grid,
            num_train_timesteps=path.num_levels,
        )
        x_t = maths.inversion.invert(
            guided(predict, batch, self.inversion_cfg), x_0, levels, path=path, labels=self._first_label(),
            refine=self._step(),
        )
        return pair_at(batch.x_0, unflatten_sides(x_t, sides), batch.timesteps, path)

    def _first_label(self) -> str:
        return "source"

    def _step(self) -> Refine:
        return maths.inversion.STEPS[self.refine]


@dataclass(frozen=True, kw_only=True)
class Labelled(Inversion):
    """The inversions whose first prediction of a step may have either label.

    Attributes:
        labels: timestep label of a prediction, "source" (paper) or "target" (ReNoise, diffusers >= 0.22).
    """

    labels: str = "source"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known(self.labels, ("source", "target"), what="noising.labels")

    def _first_label(self) -> str:
        return self.labels


@dataclass(frozen=True, kw_only=True)
class DDIM(Labelled):
    """Plain DDIM inversion (Eq. 13)."""

    refine: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class ReNoise(Labelled):
    """DDIM inversion with one ReNoise step at its end (Eq. 14): the paper's."""

    refine: ClassVar[str] = "final"


@dataclass(frozen=True, kw_only=True)
class Heun(Labelled):
    """Second-order inversion: at every step the mean of the predictions at its two ends. Not in the paper."""

    refine: ClassVar[str] = "heun"


@dataclass(frozen=True, kw_only=True)
class Midpoint(Inversion):
    """Second-order inversion: at every step the prediction half-way. Two evaluations a step. Not in the paper."""

    refine: ClassVar[str] = "midpoint"


@dataclass(frozen=True, kw_only=True)
class ReNoiseEvery(Inversion):
    """ReNoise at every step, under target labels, as its own paper does (Garibi et al. 2024). Not in SmPO's.

    Attributes:
        rounds: times that every step is taken again, >= 1; rounds + 1 evaluations a step.
        averaged: the step goes along the mean of the last so many predictions, in [1, rounds + 1]; 1 is the last
            alone. ReNoise's code has 9 rounds and averages 2, below t = 250 at most 5 rounds and averages all.
    """

    rounds: int = 1
    averaged: int = 1
    refine: ClassVar[str] = "renoise_every"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise ConfigError(f"noising.rounds must be >= 1, got {self.rounds}; for none set noising.name=ddim")
        if not 1 <= self.averaged <= self.rounds + 1:
            raise ConfigError(f"noising.averaged must lie in [1, rounds + 1 = {self.rounds + 1}], got {self.averaged}")

    def _step(self) -> Refine:
        return lambda step: maths.inversion.renoise_every(step, rounds=self.rounds, averaged=self.averaged)
