"""Learning from preferences: noised images, the errors of policy and reference on them, and an objective."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smpo.core.precision import widest_float
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
from smpo.models.family import Predicting
from smpo.noising.latents import pair_at
from smpo.noising.noising import Noising
from smpo.objectives.objective import Loss, Objective
from smpo.training.learners.learner import Networks, Pool, StepOutput, Sums


@dataclass
class NFE:
    """Number of function evaluations: images sent forward through a denoiser. Checkpointed repeats do not count.

    Attributes:
        grad: with gradient, by the policy.
        no_grad: without: inversion, reference, and the pass ahead of a step that pools.
    """

    grad: int = 0
    no_grad: int = 0


@dataclass(frozen=True)
class Prepared:
    """A micro-batch up to the policy's prediction.

    Attributes:
        batch: the examples.
        noisy: their noised latents.
        reference: the reference's error of each image, shape (S, B), or None.
        nfe: of this micro-batch, so far.
    """

    batch: TrainingBatch
    noisy: NoisyPair
    reference: Tensor | None
    nfe: NFE


@dataclass(frozen=True)
class PreferenceLearner:
    """See `Learner`. Pure but for the networks.

    Attributes:
        family: asks a denoiser for its output.
        noising: a member of seam 2.
        objective: a member of seam 3.
        is_cached: batches carry their noised latents and the reference's errors.
    """

    family: Predicting
    noising: Noising
    objective: Objective
    is_cached: bool = False

    @property
    def needs_reference_model(self) -> bool:
        """Whether training asks a reference for its errors, or to invert."""
        return not self.is_cached and self.objective.needs_reference_model(self.noising.network)

    @property
    def varying_passes(self) -> str | None:
        """The network that inverts: an inversion is as long as its timesteps ask."""
        return None if self.is_cached else self.noising.network

    @property
    def needs_pool(self) -> bool:
        """As the objective says."""
        return self.objective.needs_pool

    def prepare(self, batch: TrainingBatch, networks: Networks) -> Prepared:
        """The noised latents and the reference's errors, without gradient."""
        nfe = NFE()
        if batch.cached is not None:
            noisy = pair_at(batch.x_0, batch.cached.x_t, batch.cached.timesteps, self.family.path)
            return Prepared(batch, noisy, batch.cached.reference, nfe)
        noisy = self.noised(batch, networks, nfe)
        return Prepared(batch, noisy, self.reference_errors(batch, noisy, networks, nfe), nfe)

    def noised(self, batch: TrainingBatch, networks: Networks, nfe: NFE) -> NoisyPair:
        """The noised batch; the inverting network runs in eval mode and without gradient."""
        network = networks.reference if self.noising.network == "reference" else networks.bare_policy
        assert network is not None  # by needs_reference_model
        network.eval()
        with torch.no_grad():
            return self.noising(self.predictor(network, networks, nfe), batch, self.family.path)

    def reference_errors(
        self, batch: TrainingBatch, noisy: NoisyPair, networks: Networks, nfe: NFE
    ) -> Tensor | None:
        """The reference's error of each image, shape (S, B); None where the objective needs none."""
        if not self.objective.needs_reference:
            return None
        assert networks.reference is not None  # by needs_reference_model
        with torch.no_grad():
            return side_errors(self.predictor(networks.reference, networks, nfe), noisy, batch.conditioning)

    @torch.no_grad()
    def pooled(self, prepared: Prepared, networks: Networks) -> Tensor:
        """What the objective pools, by the same weights in the same mode as in the step, shape (B,).

        A denoiser with dropout draws other masks here than in its step.
        """
        return self.objective.pooled(self.policy_errors(prepared, networks.bare_policy, networks))

    def loss(self, prepared: Prepared, networks: Networks, pool: Pool) -> StepOutput:
        """The loss of each example, with its graph, and what is logged."""
        errors, p_winner = self.policy_errors(prepared, networks.policy, networks), prepared.batch.p_winner
        if self.needs_pool:
            errors = replace(errors, pool=pool(self.objective.pooled(errors)))
        loss = self.objective(errors, p_winner)
        return StepOutput(loss.value, sums_of(loss, errors, p_winner, prepared.nfe))

    def summarise(self, means: dict[str, float]) -> dict[str, float]:
        """The means under their names, with the logit's standard deviation.

        Where no label prefers an image there is no accuracy, and the logit says nothing.
        """
        mean, square = means.pop("logit", None), means.pop("logit_squared", None)
        if mean is None or square is None or "implicit_accuracy" not in means:
            return means
        return {**means, "logit_mean": mean, "logit_std": max(0.0, square - mean**2) ** 0.5}

    def policy_errors(self, prepared: Prepared, denoiser: nn.Module, networks: Networks) -> PairErrors:
        """The errors of policy and reference; `denoiser` is the policy, wrapped or not, put into train mode."""
        denoiser.train()
        predict = self.predictor(denoiser, networks, prepared.nfe)
        return pair_errors(side_errors(predict, prepared.noisy, prepared.batch.conditioning), prepared.reference)

    def predictor(self, denoiser: nn.Module, networks: Networks, nfe: NFE) -> Predict:
        """The output of `denoiser` under the shared precision context, counted in `nfe`."""

        def predict(x_t: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
            if torch.is_grad_enabled():
                nfe.grad += len(x_t)
            else:
                nfe.no_grad += len(x_t)
            with networks.autocast():
                return self.family.predict(denoiser, x_t, timesteps, conditioning)

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


def sums_of(loss: Loss, errors: PairErrors, p_winner: Tensor, nfe: NFE) -> Sums:
    """What is logged of a micro-batch, in `widest_float`; no host sync.

    Right is an example whose logit is positive, half right one whose logit is zero; where p_winner = 1/2 there is
    nothing to judge by. An image shown alone counts as winner or loser by its p_winner.
    """
    value = loss.value.detach()
    every, wide = torch.ones_like(value), widest_float(value.device)
    columns = {"loss": (value, every), **_error_columns(errors, p_winner), **_logit_columns(loss.logit, p_winner)}
    columns |= {name: (metric.detach(), every) for name, metric in loss.metrics.items()}
    count = every.to(wide).sum()
    evaluations = {
        name: (count.new_full((), number), count) for name, number in
        {"nfe_grad": nfe.grad, "nfe_no_grad": nfe.no_grad}.items()
    }
    return {name: (a.to(wide).sum(), b.to(wide).sum()) for name, (a, b) in columns.items()} | evaluations


def _error_columns(errors: PairErrors, p_winner: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Errors of the images and how far they are from the reference's; each with which examples show such an image."""
    w = errors.policy_w.detach()
    if errors.policy_l is None:
        winner = (p_winner > 0.5).to(w)
        sides = {"w": (w, errors.reference_w, winner), "l": (w, errors.reference_w, 1 - winner)}
    else:
        one = torch.ones_like(w)
        sides = {"w": (w, errors.reference_w, one), "l": (errors.policy_l.detach(), errors.reference_l, one)}
    columns = {f"error_{side}": (shown * error, shown) for side, (error, _, shown) in sides.items()}
    return columns | {
        f"error_delta_{side}": (shown * (error - reference), shown)
        for side, (error, reference, shown) in sides.items() if reference is not None
    }


def _logit_columns(logit: Tensor | None, p_winner: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    if logit is None:
        return {}
    logit = logit.detach()
    judged, every = (p_winner != 0.5).to(logit), torch.ones_like(logit)
    right = judged * ((logit > 0).to(logit) + 0.5 * (logit == 0).to(logit))
    return {
        "implicit_accuracy": (right, judged), "logit": (logit, every), "logit_squared": (logit.square(), every),
    }
