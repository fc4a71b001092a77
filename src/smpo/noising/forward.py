"""Random forward noise, as in Diffusion-DPO and ordinary training."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from smpo.core.checks import check_known
from smpo.core.randomness import normal_per_seed
from smpo.core.records import NoisyPair, Predict, TrainingBatch, flatten_sides, unflatten_sides
from smpo.core.transfer import send
from smpo.maths.schedule import add_noise, alpha_bar


@dataclass(frozen=True, kw_only=True)
class Forward:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, the target being eps.

    Attributes:
        noise: "shared" between winner and loser (the released Diffusion-DPO; less variance) or "independent" (its
            paper).
    """

    noise: str = "shared"
    network: ClassVar[str | None] = None
    chain_length: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_known(self.noise, ("shared", "independent"), what="noising.noise")

    def __call__(self, predict: Predict, batch: TrainingBatch, alphas_cumprod: Tensor) -> NoisyPair:
        """The noised batch; `predict` is not used."""
        sides = batch.x_0.shape[0]
        streams = ["noise"] * sides if self.noise == "shared" else [f"noise-{side}" for side in range(sides)]
        draws = [normal_per_seed(batch.seeds, batch.x_0.shape[2:], stream=stream) for stream in streams]
        noise = send(flatten_sides(torch.stack(draws)), batch.x_0.device)
        abar = alpha_bar(alphas_cumprod, batch.timesteps.repeat(sides))
        x_t = add_noise(flatten_sides(batch.x_0), noise, abar)
        return NoisyPair(unflatten_sides(x_t, sides), unflatten_sides(noise, sides), batch.timesteps)
