"""What the noisings share: guided predictions, and the targets of latents that are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpo import core
from smpo.core.records import NoisyPair, flatten_sides, unflatten_sides

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.records import Conditioning, Predict, TrainingBatch
    from smpo.maths.inversion import PredictRows
    from smpo.maths.path import GaussianPath

DIFFUSION = "diffusion"


def guided(predict: Predict, batch: TrainingBatch, guidance_scale: float) -> PredictRows:
    """Row-wise prediction under classifier-free guidance: 1 = conditional only, 0 = unconditional only.

    Any other scale costs two evaluations a step (METHODS D39).
    """

    def with_conditioning(conditioning: Conditioning) -> PredictRows:
        return lambda x, labels, rows: predict(x, labels, conditioning.rows(core.transfer.send(rows, x.device)))

    conditional, unconditional = with_conditioning(batch.conditioning), with_conditioning(batch.null_conditioning)
    if guidance_scale == 1:
        return conditional
    if guidance_scale == 0:
        return unconditional

    def both(x: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        base = unconditional(x, labels, rows)
        return base + guidance_scale * (conditional(x, labels, rows) - base)

    return both


def pair_at(x_0: Tensor, x_t: Tensor, timesteps: Tensor, path: GaussianPath) -> NoisyPair:
    """The noisy pair of given latents: its target is what the path has for them (of Eq. 16's tau_t).

    Args:
        x_0: clean latents, shape (S, B, C, H, W).
        x_t: noised latents, shape (S, B, C, H, W).
        timesteps: their labels and the level of their target, shape (B,), on the CPU.
        path: of the model.
    """
    sides = len(x_t)
    target = path.target_of(flatten_sides(x_t), flatten_sides(x_0), timesteps.repeat(sides))
    return NoisyPair(x_t, unflatten_sides(target, sides), timesteps)
