"""UNet evaluations of an example, counted by the trainer's own step, and by the stage that stores examples."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from smpo.core.records import Conditioning, TrainingBatch
from smpo.maths.betas import scaled_linear_alphas_cumprod
from smpo.maths.path import EpsilonPath
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES, unit_of_batch
from smpo.pipeline.config import Recipe
from smpo.training.invert import cached_inversion
from smpo.training.step import Evaluations, StepParts, noised, prepare, rewards_ahead, training_step


@dataclass(frozen=True)
class ExampleCost:
    """Images sent through a UNet for one example of a pair (or of an image), the mean over timesteps.

    Attributes:
        seen: what a batch counts, "pairs" or "images".
        nfe_grad: by the policy, forward and backward.
        reference: by the reference, forward only, as all that follow.
        inversion: by the network that inverts.
        ahead: by the policy before an accumulated step, for its reference point.
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
    """A model family whose UNets predict no noise: what a step asks of it is counted, nothing is computed."""

    path = EpsilonPath(scaled_linear_alphas_cumprod())

    def predict(self, unet: nn.Module, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        """Zeros like `x_t`."""
        return torch.zeros_like(x_t)


def example_cost(recipe: Recipe, *, num_processes: int = 1) -> ExampleCost:
    """What an example costs in training, the mean over timesteps."""
    batch, parts = _every_timestep(recipe)
    num, inversion = len(batch.timesteps), Evaluations()
    if recipe.training.cached_inversion_epochs is None:
        noised(batch, parts, inversion)
    else:
        batch = replace(batch, stored=cached_inversion(batch, parts, Evaluations(), dtype=torch.float32))
    prepared = prepare(batch, parts)
    before = prepared.evaluations.free
    if parts.objective.needs_reference_point and recipe.training.accumulation(num_processes) > 1:
        rewards_ahead(prepared, parts)
    ahead = prepared.evaluations.free - before
    training_step(prepared, parts)
    return ExampleCost(
        unit_of_batch(parts.objective), prepared.evaluations.trained / num, (before - inversion.free) / num,
        inversion.free / num, ahead / num,
    )


def invert_nfe(recipe: Recipe) -> float:
    """UNet evaluations, forward only, of an example that `smpo invert` stores, the mean over timesteps."""
    batch, parts = _every_timestep(recipe)
    evaluations = Evaluations()
    cached_inversion(batch, parts, evaluations, dtype=torch.float32)
    return evaluations.free / len(batch.timesteps)


def _every_timestep(recipe: Recipe) -> tuple[TrainingBatch, StepParts]:
    """A batch of latents of one pixel, one example for each timestep, and parts that count."""
    objective, noising = OBJECTIVES.build(recipe.objective), NOISINGS.build(recipe.noising)
    first, chain_length, seen = recipe.training.min_timestep, noising.chain_length, unit_of_batch(objective)
    chains = (recipe.training.max_timestep + 1 - first) // chain_length
    grid = torch.arange(chains * chain_length).view(chain_length, chains)
    timesteps = first + grid.T.flatten()  # those of a chain rise
    num = len(timesteps)
    sides = 2 if seen == "pairs" else 1
    nothing = Conditioning({"hidden": torch.zeros(sides * num, 1)})
    batch = TrainingBatch(
        x_0=torch.zeros(sides, num, 1, 1, 1), timesteps=timesteps, p_winner=torch.ones(num), conditioning=nothing,
        null_conditioning=nothing, seeds=torch.arange(num), pair_ids=("",) * num,
    )
    unet, family = nn.Identity(), cast(Any, NullFamily())  # a step asks a family for nothing else
    return batch, StepParts(family, unet, unet, unet, noising, objective, nullcontext)
