"""Random forward noise, as in Diffusion-DPO and ordinary training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from smpo import core
from smpo.core.checks import check_known
from smpo.core.records import NoisyPair, flatten_sides, unflatten_sides
from smpo.noising.latents import DIFFUSION

if TYPE_CHECKING:
    from smpo.core.records import Predict, TrainingBatch
    from smpo.maths.path import GaussianPath


@dataclass(frozen=True, kw_only=True)
class Forward:
    """x_t = alpha x_0 + sigma eps; the target is what the path has for this noise.

    Attributes:
        noise: "shared" between winner and loser (the released Diffusion-DPO; less variance) or "independent" (its
            paper).
    """

    noise: str = "shared"
    network: ClassVar[str | None] = None
    chain_length: ClassVar[int] = 1
    path_kinds: ClassVar[tuple[str, ...]] = (DIFFUSION,)

    def __post_init__(self) -> None:
        check_known(self.noise, ("shared", "independent"), what="noising.noise")

    def __call__(self, predict: Predict, batch: TrainingBatch, path: GaussianPath) -> NoisyPair:
        """The noised batch; `predict` is not used."""
        sides, x_0, levels = len(batch.x_0), flatten_sides(batch.x_0), batch.timesteps.repeat(len(batch.x_0))
        streams = ["noise"] * sides if self.noise == "shared" else [f"noise-{side}" for side in range(sides)]
        draws = core.randomness.normal_per_stream(batch.seeds, batch.x_0.shape[2:], streams=streams)
        noise = core.transfer.send(draws, x_0.device)
        x_t, target = path.mix(x_0, noise, levels), path.target(x_0, noise, levels)
        return NoisyPair(unflatten_sides(x_t, sides), unflatten_sides(target, sides), batch.timesteps)
