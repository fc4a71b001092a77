"""The inversion of the released code (commit 8922d54 under diffusers 0.20), for reproduction."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from smpo.checks import check_known
from smpo.errors import ConfigError
from smpo.maths.inversion import inversion_levels, invert
from smpo.maths.schedule import alpha_bar, target_noise
from smpo.noising.inversion import NETWORKS, guided
from smpo.records import NoisyPair, Predict, TrainingBatch, flatten_sides, unflatten_sides


@dataclass(frozen=True, kw_only=True)
class Released:
    """Fixed grid, two averaged predictions under one label at every step, latents that stop near t, not on it.

    tau and the UNet's label use t although the latents sit at another level (METHODS D12, D13). Two departures: labels
    are never negative (D18), and alpha_bar is not rounded to fp16 (D21).

    Attributes:
        inversion_steps: strides of the grid; 9 is `set_timesteps(10)` (SDXL), 4 is `set_timesteps(5)` (SD1.5).
        inversion_cfg: guidance scale; the release knows only 1.
        network: which UNet inverts.
        timestep: the UNet's label and tau's level, "drawn" (t, as released) or "reached" (where the latents really are,
            which removes the mismatch at no cost).
    """

    inversion_steps: int = 9
    inversion_cfg: float = 1.0
    network: str = "policy"
    timestep: str = "drawn"
    refine: ClassVar[str] = "every_average"

    def __post_init__(self) -> None:
        check_known(self.network, NETWORKS, what="noising.network")
        check_known(self.timestep, ("drawn", "reached"), what="noising.timestep")
        if self.inversion_steps < 1:
            raise ConfigError(f"noising.inversion_steps must be >= 1, got {self.inversion_steps}")

    @torch.no_grad()
    def __call__(self, predict: Predict, batch: TrainingBatch, alphas_cumprod: Tensor) -> NoisyPair:
        """The inverted batch, labelled with t (or with the level reached); carries no gradient."""
        sides, x_0 = batch.x_0.shape[0], flatten_sides(batch.x_0)
        levels = inversion_levels(
            batch.timesteps.repeat(sides), num_steps=self.inversion_steps, grid="released",
            num_train_timesteps=len(alphas_cumprod),
        )
        x_t = invert(
            guided(predict, batch, self.inversion_cfg), x_0, levels, alphas_cumprod=alphas_cumprod, refine=self.refine
        )
        timesteps = levels[: len(batch.timesteps), -1] if self.timestep == "reached" else batch.timesteps
        tau = target_noise(x_t, x_0, alpha_bar(alphas_cumprod, timesteps.repeat(sides)))
        return NoisyPair(unflatten_sides(x_t, sides), unflatten_sides(tau, sides), timesteps)
