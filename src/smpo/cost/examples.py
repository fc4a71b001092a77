"""Evaluations of the denoiser for an example, counted by the learner itself and by `smpo invert`."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smpo.core.records import Conditioning, TrainingBatch
from smpo.maths.betas import scaled_linear_alphas_cumprod
from smpo.maths.path import EpsilonPath
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES
from smpo.pipeline.config import Recipe
from smpo.training.invert import cached_inversion
from smpo.training.learners.learner import Networks
from smpo.training.learners.preference import NFE, PreferenceLearner


@dataclass(frozen=True)
class ExampleCost:
    """Images sent through a denoiser for one example of a pair (or of an image), the mean over timesteps.

    Attributes:
        seen: what a batch counts, "pairs" or "images".
        nfe_grad: by the policy, forward and backward.
        reference: by the reference, forward only, as all that follow.
        inversion: by the network that inverts.
        ahead: by the policy ahead of an accumulated step that pools.
    """

    seen: str
    nfe_grad: float
    reference: float
    inversion: float
    ahead: float

    @property
    def nfe_no_grad(self) -> float:
        """All evaluations without gradient."""
        return self.reference + self.inversion + self.ahead

    @property
    def no_grad_parts(self) -> dict[str, float]:
        """The evaluations without gradient by what makes them, as far as there are any."""
        parts = {"reference": self.reference, "inversion": self.inversion, "policy, ahead of the step": self.ahead}
        return {name: value for name, value in parts.items() if value}


class NullFamily:
    """A model family whose denoisers predict nothing: what a step asks of it is counted, nothing is computed."""

    path = EpsilonPath(scaled_linear_alphas_cumprod())

    def predict(self, denoiser: nn.Module, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        """Zeros like `x_t`."""
        return torch.zeros_like(x_t)


NOTHING = Networks(nn.Identity(), nn.Identity(), nn.Identity(), nullcontext)
"""Networks for a family that asks them for nothing."""


def example_cost(recipe: Recipe, *, num_processes: int = 1) -> ExampleCost:
    """What an example costs in training, the mean over timesteps."""
    learner, batch = _every_timestep(recipe)
    num, inversion = len(batch.timesteps), NFE()
    if recipe.training.cached_inversion_epochs is None:
        learner.noised(batch, NOTHING, inversion)
    else:
        cached = cached_inversion(batch, learner, NOTHING, NFE(), dtype=torch.float32)
        batch = replace(batch, cached=cached)
    prepared = learner.prepare(batch, NOTHING)
    before = prepared.nfe.no_grad
    if learner.needs_pool and recipe.training.accumulation(num_processes) > 1:
        learner.pooled(prepared, NOTHING)
    ahead = prepared.nfe.no_grad - before
    learner.loss(prepared, NOTHING, lambda values: values)
    return ExampleCost(
        learner.objective.unit, prepared.nfe.grad / num, (before - inversion.no_grad) / num, inversion.no_grad / num,
        ahead / num,
    )


def invert_nfe(recipe: Recipe) -> float:
    """Evaluations, forward only, of an example that `smpo invert` stores, the mean over timesteps."""
    learner, batch = _every_timestep(recipe)
    nfe = NFE()
    cached_inversion(batch, learner, NOTHING, nfe, dtype=torch.float32)
    return nfe.no_grad / len(batch.timesteps)


def _every_timestep(recipe: Recipe) -> tuple[PreferenceLearner, TrainingBatch]:
    """A learner that counts, and a batch of latents of one pixel, one example for each timestep."""
    learner = PreferenceLearner(NullFamily(), NOISINGS.build(recipe.noising), OBJECTIVES.build(recipe.objective))
    first, chain_length = recipe.training.min_timestep, learner.noising.chain_length
    chains = (recipe.training.max_timestep + 1 - first) // chain_length
    grid = torch.arange(chains * chain_length).view(chain_length, chains)
    timesteps = first + grid.T.flatten()  # those of a chain rise
    num, sides = len(timesteps), 2 if learner.objective.unit == "pairs" else 1
    nothing = Conditioning({"hidden": torch.zeros(sides * num, 1)})
    return learner, TrainingBatch(
        x_0=torch.zeros(sides, num, 1, 1, 1), timesteps=timesteps, p_winner=torch.ones(num), conditioning=nothing,
        null_conditioning=nothing, seeds=torch.arange(num), ids=("",) * num,
    )
