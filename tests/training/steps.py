"""One micro-batch of a run, step by step, and what its objective was given."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from smpo.core.processes import Process
from smpo.core.records import PairErrors, TrainingBatch
from smpo.objectives.objective import Loss
from smpo.training.learners.learner import Networks
from smpo.training.learners.preference import NFE, PreferenceLearner
from smpo.training.preference_run import PreferenceRun
from smpo.training.sources.order import ExampleOrder, example_at
from smpo.training.sources.pairs import MicroBatches, PairSource


@dataclass
class Noting:
    """An objective that notes its last call."""

    objective: Any
    errors: PairErrors | None = None
    loss: Loss | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def __call__(self, errors: PairErrors, p_winner: Tensor) -> Loss:
        self.errors, self.loss = errors, self.objective(errors, p_winner)
        return self.loss


@dataclass(frozen=True)
class Setup:
    """A learner and its networks."""

    learner: PreferenceLearner
    networks: Networks

    def with_family(self, family: Any) -> "Setup":
        return replace(self, learner=replace(self.learner, family=family))


@dataclass(frozen=True)
class Stepped:
    """What a micro-batch gave."""

    loss: Tensor
    logit: Tensor | None
    errors: PairErrors
    nfe: NFE


def micro_batches(run: PreferenceRun, *, order: ExampleOrder | None = None, process: Process | None = None,
                  **changes: Any) -> MicroBatches:
    """The run's micro-batches with some of its training options changed, in the order of seed 0."""
    source = PairSource(
        run.pairs, run.cache, run.family, run.options.model_copy(update=changes),
        order or ExampleOrder(0, run.objective.winner_share), run.cached,
    )
    return MicroBatches(source, process or Process())


def batch_of(run: PreferenceRun, positions: range, **changes: Any) -> TrainingBatch:
    """The examples at these positions."""
    examples = [example_at(position, num_pairs=len(run.pairs), order=ExampleOrder(0)) for position in positions]
    return micro_batches(run, **changes).collate(examples)


def setup_of(
    run: PreferenceRun, *, moved: float = 0.0,
    autocast: Callable[[], AbstractContextManager] = lambda: torch.autocast("cpu", enabled=False),
) -> Setup:
    """A policy that differs from the reference by normal draws of deviation `moved`."""
    policy, reference = run.family.load_denoiser(run.init_weights), run.family.load_denoiser(run.init_weights)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += moved * torch.randn(parameter.shape, generator=draw)
    return Setup(run.learner, Networks(policy, policy, reference.eval().requires_grad_(False), autocast))


def stepped(batch: TrainingBatch, setup: Setup, pool: Callable[[Tensor], Tensor] = lambda values: values) -> Stepped:
    """A whole micro-batch; by itself it is the whole optimizer step."""
    noting = Noting(setup.learner.objective)
    learner = replace(setup.learner, objective=noting)
    prepared = learner.prepare(batch, setup.networks)
    output = learner.loss(prepared, setup.networks, pool)
    return Stepped(output.loss, noting.loss.logit, noting.errors, prepared.nfe)
