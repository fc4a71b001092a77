"""Amortised inversion: one chain through the noise levels gives latents for several training timesteps of its pair."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smpo.core.checks import check_known
from smpo.core.errors import ConfigError
from smpo.core.records import NoisyPair, Predict, TrainingBatch, flatten_sides, unflatten_sides
from smpo.maths.inversion import CLEAN, invert_chain
from smpo.noising.inversion import NETWORKS, guided
from smpo.noising.target import noise_between


@dataclass(frozen=True, kw_only=True)
class Chained:
    """DDIM inversion whose every level is trained on, with one ReNoise step each. Not in the paper.

    `chain_length` examples in a row show one pair at as many timesteps; a chain of as many steps passes through all of
    them, at chain_length + 1 evaluations an image where the paper's 9 steps take about 6 for a single timestep.

    Attributes:
        chain_length: timesteps of a chain, >= 1; micro-batches hold whole chains.
        renoise: take each step again with the noise predicted at its end (Eq. 14).
        inversion_cfg: guidance scale; 1 = conditional prediction only.
        network: which UNet inverts, "policy" or "reference".
    """

    chain_length: int = 4
    renoise: bool = True
    inversion_cfg: float = 1.0
    network: str = "policy"

    def __post_init__(self) -> None:
        check_known(self.network, NETWORKS, what="noising.network")
        if self.chain_length < 1:
            raise ConfigError(f"noising.chain_length must be >= 1, got {self.chain_length}")

    @torch.no_grad()
    def __call__(self, predict: Predict, batch: TrainingBatch, alphas_cumprod: Tensor) -> NoisyPair:
        """The inverted batch and tau_t of Eq. 16; carries no gradient.

        Raises:
            ValueError: the rows are no whole chains of rising timesteps.
        """
        sides, x_0 = batch.x_0.shape[0], flatten_sides(batch.x_0)
        timesteps = batch.timesteps.repeat(sides)
        if len(batch.timesteps) % self.chain_length:
            raise ValueError(f"a batch must hold chains of {self.chain_length}, got {len(batch.timesteps)} examples")
        ends = timesteps.view(-1, self.chain_length)
        if not (ends.diff(dim=1) > 0).all():
            raise ValueError(f"the timesteps of a chain must rise, got {ends.tolist()}")
        levels = torch.cat([torch.full_like(ends[:, :1], CLEAN), ends], dim=1)
        rows = guided(predict, batch, self.inversion_cfg)
        x_t = invert_chain(
            lambda x, labels, chains: rows(x, labels, self.chain_length * chains), x_0[:: self.chain_length], levels,
            alphas_cumprod=alphas_cumprod, renoise=self.renoise,
        ).flatten(0, 1)
        return noise_between(batch.x_0, unflatten_sides(x_t, sides), batch.timesteps, alphas_cumprod)
