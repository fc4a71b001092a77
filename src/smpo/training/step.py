"""One micro-batch: noise, predict with reference and policy, objective. Pure but for the model."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from smpo.core.records import (
    Conditioning,
    NoisyPair,
    PairErrors,
    Predict,
    TrainingBatch,
    flatten_sides,
    unflatten_sides,
)
from smpo.maths.preference import mean_squared_error
from smpo.maths.utility import implicit_reward, reference_point
from smpo.models.sd import StableDiffusion
from smpo.noising.latents import pair_at


@dataclass(frozen=True)
class StepParts:
    """What a step needs beside its batch.

    Attributes:
        family: asks a UNet for noise.
        policy: the trained UNet, perhaps wrapped for distribution; called once a micro-batch, with gradient.
        inverter: the same weights without the wrapper, for all that needs no gradient.
        reference: the frozen UNet; None where neither objective nor inversion needs it, or all examples are stored.
        noising: a member of seam 2.
        objective: a member of seam 3.
        autocast: makes the precision context; policy, inversion and reference share it (METHODS D37).
    """

    family: StableDiffusion
    policy: nn.Module
    inverter: nn.Module
    reference: nn.Module | None
    noising: Any
    objective: Any
    autocast: Callable[[], AbstractContextManager]


@dataclass
class Evaluations:
    """Images sent forward through a UNet, counted on the way; what gradient checkpointing repeats is not.

    Attributes:
        trained: with gradient, by the policy.
        free: without: inversion, reference, and the pass before an accumulated step that needs a reference point.
    """

    trained: int = 0
    free: int = 0


@dataclass(frozen=True)
class Prepared:
    """A micro-batch up to the policy's prediction.

    Attributes:
        batch: the examples.
        noisy: their noised latents.
        reference: the reference's error of each image, shape (S, B), or None.
        evaluations: of this micro-batch, so far.
    """

    batch: TrainingBatch
    noisy: NoisyPair
    reference: Tensor | None
    evaluations: Evaluations


@dataclass(frozen=True)
class StepOutput:
    """Results of each example, shape (B,), float32.

    Attributes:
        loss: with its graph.
        logit: what the objective squashes, positive where the policy agrees with the label; None where it has none.
        errors: of each image.
        evaluations: of this micro-batch.
    """

    loss: Tensor
    logit: Tensor | None
    errors: PairErrors
    evaluations: Evaluations


Pool = Callable[[Tensor], Tensor]
"""Implicit rewards of this micro-batch's images (B,) -> reference point of the whole optimizer step ()."""


def prepare(batch: TrainingBatch, parts: StepParts) -> Prepared:
    """What a step needs before the policy predicts: noised latents and the reference's errors, without gradient."""
    evaluations = Evaluations()
    if batch.stored is not None:
        noisy = pair_at(batch.x_0, batch.stored.x_t, batch.stored.timesteps, parts.family.path)
        return Prepared(batch, noisy, batch.stored.reference, evaluations)
    noisy = noised(batch, parts, evaluations)
    reference = None
    if parts.objective.needs_reference:
        with torch.no_grad():
            reference = side_errors(predictor(parts, parts.reference, evaluations), noisy, batch.conditioning)
    return Prepared(batch, noisy, reference, evaluations)


def training_step(prepared: Prepared, parts: StepParts, pool: Pool = reference_point) -> StepOutput:
    """Loss of each example, with its graph, and what the log wants to know.

    Args:
        prepared: the micro-batch.
        parts: what a step needs beside it.
        pool: asked where the objective needs a reference point; by itself the micro-batch is the whole step.
    """
    batch = prepared.batch
    errors = policy_errors(prepared, parts, parts.policy)
    if parts.objective.needs_reference_point:
        errors = replace(errors, reference_point=pool(implicit_reward(errors).detach()))
    loss, logit = parts.objective(errors, batch.p_winner), parts.objective.logit(errors, batch.p_winner)
    return StepOutput(loss, logit, errors, prepared.evaluations)


@torch.no_grad()
def rewards_ahead(prepared: Prepared, parts: StepParts) -> Tensor:
    """Implicit reward of each image before its `training_step`, shape (B,), by the same network in the same mode.

    A UNet with dropout draws other masks here than in its step.
    """
    return implicit_reward(policy_errors(prepared, parts, parts.inverter))


def policy_errors(prepared: Prepared, parts: StepParts, unet: nn.Module) -> PairErrors:
    """The errors of policy and reference; `unet` is the policy, wrapped or not, put into train mode."""
    unet.train()
    predict = predictor(parts, unet, prepared.evaluations)
    return pair_errors(side_errors(predict, prepared.noisy, prepared.batch.conditioning), prepared.reference)


def noised(batch: TrainingBatch, parts: StepParts, evaluations: Evaluations) -> NoisyPair:
    """The noised batch; the inverting network runs in eval mode and without gradient."""
    network = parts.reference if parts.noising.network == "reference" else parts.inverter
    network.eval()
    with torch.no_grad():
        return parts.noising(predictor(parts, network, evaluations), batch, parts.family.path)


def predictor(parts: StepParts, unet: nn.Module, evaluations: Evaluations) -> Predict:
    """Noise prediction by `unet` under the shared precision context, counted in `evaluations`."""

    def predict(x_t: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        if torch.is_grad_enabled():
            evaluations.trained += len(x_t)
        else:
            evaluations.free += len(x_t)
        with parts.autocast():
            return parts.family.predict(unet, x_t, timesteps, conditioning)

    return predict


def side_errors(predict: Predict, noisy: NoisyPair, conditioning: Conditioning) -> Tensor:
    """Mean squared error of each image against its target, shape (S, B), float32; one forward for all sides."""
    sides = noisy.x_t.shape[0]
    prediction = predict(flatten_sides(noisy.x_t), noisy.timesteps.repeat(sides), conditioning)
    return unflatten_sides(mean_squared_error(prediction, flatten_sides(noisy.target)), sides)


def pair_errors(policy: Tensor, reference: Tensor | None) -> PairErrors:
    """The record of errors given as (S, B), winners first."""
    has_losers = len(policy) == 2
    return PairErrors(
        policy_w=policy[0],
        policy_l=policy[1] if has_losers else None,
        reference_w=None if reference is None else reference[0],
        reference_l=None if reference is None or not has_losers else reference[1],
    )
