"""The baseline of the benchmarks does the released step's mathematics: ours with noising `released`, pair by pair."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.released_step import ReleasedOptions, ReleasedTrainer, pair_loss
from benchmarks.workload import (
    Plan,
    Workload,
    accelerator_on,
    make_workload,
    released_pairs,
    released_stepping,
    released_trainer,
    stepping,
)
from smpo.training.learners.learner import Networks
from smpo.training.run import Run
from smpo.training.trainer import forget_precision
from tests.training.steps import Setup, micro_batches, stepped

CPU = torch.device("cpu")
PAIRS = 4
SETTINGS = (
    "training.mixed_precision='no'", "training.workers=0", "cache.dtype=float32", f"training.batch_size={PAIRS}",
    "training.micro_batch_size=2", "training.gradient_checkpointing=false",
    "objective={name: smpo, beta: 300, gamma: 10}",
)
RELEASED = "noising={{name: released, inversion_steps: {steps}, predictions: 2, jitter: 0.0}}"
GRIDS = {"tiny": 5, "tiny-sdxl": 10}


@pytest.fixture(scope="module", params=list(GRIDS))
def work(request, tmp_path_factory) -> Workload:
    root = tmp_path_factory.mktemp("work")
    return make_workload(Plan(root, request.param, CPU, drawn=False, settings=SETTINGS), pairs=PAIRS)


@pytest.fixture(autouse=True)
def _float32():
    yield
    forget_precision()


def released_run(work: Workload) -> Run:
    """A run whose pairs have labels of their own."""
    run = work.run(RELEASED.format(steps=GRIDS[work.plan.model] - 1))
    run.pairs.p_winner = torch.linspace(0.55, 0.95, PAIRS)
    return run


def baseline(work: Workload, run: Run) -> ReleasedTrainer:
    """The released step with a policy that has moved from its reference."""
    options = ReleasedOptions(grid=GRIDS[work.plan.model], beta=300.0)
    trainer = released_trainer(work, run, accelerator_on(CPU, "no"), options)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.models.policy.parameters():
            parameter.add_(0.02 * parameter.std(correction=0) * torch.randn_like(parameter))
    return trainer


def gradients(unet: nn.Module) -> Tensor:
    """All of them, one after the other."""
    return torch.cat([parameter.grad.flatten() for parameter in unet.parameters()])


def test_loss_and_gradient_are_those_of_our_step(work) -> None:
    """Four pairs with their own timesteps and labels: ours in one batch, the baseline one by one.

    Tolerance 1e-4 of the loss and 1e-3 of the gradient's norm: float32 over up to 19 evaluations one after the other,
    batched otherwise, and the baseline's alpha-bar is float32.
    """
    run = released_run(work)
    trainer, pair_at = baseline(work, run), released_pairs(work, run)
    models = trainer.models
    losses = torch.stack([pair_loss(models, pair_at(place), trainer.options)[0] for place in range(PAIRS)])
    losses.mean().backward()
    theirs = gradients(models.policy)
    models.policy.zero_grad()

    setup = Setup(run.learner, Networks(models.policy, models.policy, models.reference, models.autocast))
    batches = micro_batches(run, order=run.order, micro_batch_size=PAIRS)
    output = stepped(batches[0], setup)
    output.loss.mean().backward()
    ours = gradients(models.policy)

    assert len(set(batches[0].timesteps.tolist())) == PAIRS
    assert output.logit.abs().min() > 1e-3  # the policy has moved: the margin counts
    torch.testing.assert_close(losses.detach(), output.loss.detach(), rtol=1e-4, atol=1e-5)
    assert (theirs - ours).norm() < 1e-3 * ours.norm()


@pytest.mark.slow
def test_optimizer_steps_see_the_same_pairs_and_do_the_same_work(work) -> None:
    """Two steps of the trainer itself and of the baseline: losses to 1e-3, every evaluation counted alike."""
    run, accelerator = released_run(work), accelerator_on(CPU, "no")
    options = ReleasedOptions(grid=GRIDS[work.plan.model], beta=300.0)
    ours, theirs = stepping(work, run, accelerator), released_stepping(work, run, accelerator, options)
    for _ in range(2):
        one, other = ours(), theirs()
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert {key: one[key] for key in ("pairs", "trained", "free")} == {
            key: other[key] for key in ("pairs", "trained", "free")
        }
        assert one["trained"] == 2 * PAIRS
        assert one["flops"] == pytest.approx(work.unet_flops * (3 * one["trained"] + one["free"]))
        assert one["flops"] == other["flops"]


def test_drawn_weights_are_the_same_at_every_load(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "work", "tiny-sdxl", CPU, drawn=True, settings=SETTINGS)
    family = make_workload(plan, pairs=1).family
    first, second = family.load_denoiser(), family.load_denoiser()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert family.load_vae(torch.bfloat16).dtype == torch.bfloat16
