"""The inversion of the released SmPO (commit 8922d54) and DDIM-InPO (a9cfc4d) under diffusers 0.20."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from smpo import core, maths
from smpo.core.checks import check_known
from smpo.core.errors import ConfigError
from smpo.core.records import flatten_sides, unflatten_sides
from smpo.noising.latents import DIFFUSION, guided, pair_at
from smpo.noising.noising import NETWORKS

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import NoisyPair, Predict, TrainingBatch
    from smpo.maths.path import DiffusionPath


@dataclass(frozen=True, kw_only=True)
class Released:
    """Fixed grid, latents that stop near t, not on it; the defaults are SmPO's, InPO predicts once and adds jitter.

    tau and the model's label use t although the latents sit at another level, and clean latents count as level 0
    (METHODS D12, D13, D19). Two departures: alpha_bar is not rounded to fp16 (D21), and labels are never negative
    (D18): a model asked under label 0 in place of -99 changes the gradient of an example at t = 1 by up to 16 %.

    Attributes:
        inversion_steps: strides of the grid; 9 is `set_timesteps(10)` (SDXL, InPO), 4 is `set_timesteps(5)` (SD1.5).
        inversion_cfg: guidance scale; the release knows only 1.
        network: which network inverts.
        timestep: the model's label and tau's level, "drawn" (t, as released) or "reached" (where the latents really
            are; they then start clean, alpha_bar = 1, as tau takes them to be, so that tau is what a model of constant
            noise predicts: the mismatch is gone, at no cost).
        predictions: 2 = a step goes along the mean of two predictions under one label (SmPO), 1 = along one (InPO).
        jitter: noise added after each step, in standard deviations of the DDPM posterior between its levels, >= 0; 0.1
            in InPO's code, not in its paper. Independent for winner and loser, a function of the example's seed.
    """

    inversion_steps: int = 9
    inversion_cfg: float = 1.0
    network: str = "policy"
    timestep: str = "drawn"
    predictions: int = 2
    jitter: float = 0.0
    chain_length: ClassVar[int] = 1
    path_kinds: ClassVar[tuple[str, ...]] = (DIFFUSION,)

    def __post_init__(self) -> None:
        check_known(self.network, NETWORKS, what="noising.network")
        check_known(self.timestep, ("drawn", "reached"), what="noising.timestep")
        if self.inversion_steps < 1:
            raise ConfigError(f"noising.inversion_steps must be >= 1, got {self.inversion_steps}")
        if self.predictions not in (1, 2):
            raise ConfigError(f"noising.predictions must be 2 (SmPO's) or 1 (InPO's), got {self.predictions}")
        if not 0 <= self.jitter < float("inf"):
            raise ConfigError(f"noising.jitter must be a finite number >= 0, got {self.jitter}")

    def __call__(self, predict: Predict, batch: TrainingBatch, path: DiffusionPath) -> NoisyPair:
        """The inverted batch, labelled with t (or with the level reached)."""
        sides, x_0 = batch.x_0.shape[0], flatten_sides(batch.x_0)
        levels = maths.inversion.inversion_levels(
            batch.timesteps.repeat(sides), num_steps=self.inversion_steps, grid="released",
            num_train_timesteps=path.num_levels,
        )
        if self.timestep == "reached":
            levels[:, 0] = maths.path.CLEAN
        x_t, rows = x_0, guided(predict, batch, self.inversion_cfg)
        refine = "every_average" if self.predictions == 2 else "none"
        for step in range(self.inversion_steps + 1):
            ends = levels[:, step : step + 2]
            x_t = maths.inversion.invert(rows, x_t, ends, path=path, refine=refine)
            if self.jitter:
                deviation = path.posterior_variance(*ends.unbind(1)).sqrt()
                x_t = x_t + maths.path.per_sample(self.jitter * deviation, x_t) * _normal(batch, step)
        timesteps = levels[: len(batch.timesteps), -1] if self.timestep == "reached" else batch.timesteps
        return pair_at(batch.x_0, unflatten_sides(x_t, sides), timesteps, path)


def _normal(batch: TrainingBatch, step: int) -> Tensor:
    """Standard normal draws for every image of the batch at one step, where they are, shape (S * B, C, H, W)."""
    streams = [f"jitter-{step}-{side}" for side in range(len(batch.x_0))]
    draws = core.randomness.normal_per_stream(batch.seeds, batch.x_0.shape[2:], streams=streams)
    return core.transfer.send(draws, batch.x_0.device)
