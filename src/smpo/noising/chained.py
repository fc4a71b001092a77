"""Amortised inversion: one chain through the noise levels gives latents for several training timesteps of its pair."""

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
    from smpo.maths.path import GaussianPath


@dataclass(frozen=True, kw_only=True)
class Chained:
    """DDIM inversion whose every level is trained on, with one ReNoise step each. Not in the paper.

    `chain_length` examples in a row show one pair at as many timesteps; a chain of as many steps passes through all of
    them, at chain_length + 1 evaluations an image where the paper's 9 steps take about 6 for a single timestep.

    Attributes:
        chain_length: timesteps of a chain, >= 1; micro-batches hold whole chains.
        renoise: take each step again along the prediction at its end (Eq. 14).
        inversion_cfg: guidance scale; 1 = conditional prediction only.
        network: which network inverts, "policy" or "reference".
    """

    chain_length: int = 4
    renoise: bool = True
    inversion_cfg: float = 1.0
    network: str = "policy"
    path_kinds: ClassVar[tuple[str, ...]] = (DIFFUSION,)

    def __post_init__(self) -> None:
        check_known(self.network, NETWORKS, what="noising.network")
        if self.chain_length < 1:
            raise ConfigError(f"noising.chain_length must be >= 1, got {self.chain_length}")

    def __call__(self, predict: Predict, batch: TrainingBatch, path: GaussianPath) -> NoisyPair:
        """The inverted batch and its targets (tau_t of Eq. 16).

        Raises:
            ValueError: the rows are no whole chains of rising timesteps.
        """
        sides, x_0 = batch.x_0.shape[0], flatten_sides(batch.x_0)
        levels = maths.inversion.chain_levels(batch.timesteps, self.chain_length).repeat(sides, 1)
        rows = guided(predict, batch, self.inversion_cfg)
        x_t = maths.inversion.invert_chain(
            lambda x, labels, chains: rows(x, labels, self.chain_length * chains), x_0[:: self.chain_length], levels,
            path=path, renoise=self.renoise,
        ).flatten(0, 1)
        return pair_at(batch.x_0, unflatten_sides(x_t, sides), batch.timesteps, path)
