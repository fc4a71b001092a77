"""fp16: an attempt that the gradient scaler skips moves nothing, is counted, and is made again from the same examples.

By a real scaler on the CPU, with autocast off: scales are powers of two, so that the numbers stay float32's own.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs

from smpo.core.errors import ConfigError, NonFiniteError
from smpo.core.signals import PREEMPTED
from smpo.training import trainer
from smpo.training.checkpoint import load_checkpoint
from smpo.training.learners.preference import PreferenceLearner
from smpo.training.run import Run
from smpo.training.trainer import MAX_SKIPPED_STEPS, forget_precision, train
from tests.training.outcomes import metrics_of

MakeRun = Callable[..., Run]
SETTINGS: dict[str, Any] = {
    "steps": 4, "ema_decay": 0.9, "reference_ema_decay": 0.9, "batch_size": 4, "micro_batch_size": 2,
    "noising": {"name": "forward"}, "optimizer": {"lr": 1e-3, "warmup_steps": 3, "schedule": "cosine"},
}


@pytest.fixture(autouse=True)
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training joins one process of fp16's kind, on the CPU."""

    def join(run: Run) -> Accelerator:
        forget_precision()
        accelerator = Accelerator(kwargs_handlers=[AutocastKwargs(enabled=False)], cpu=True)
        accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        return accelerator

    monkeypatch.setattr(trainer, "join_processes", join)
    yield
    forget_precision()


def overflowing(monkeypatch: pytest.MonkeyPatch, calls: set[int], then: Callable[[], None] = lambda: None) -> list[int]:
    """Let the gradients of these micro-batches, counted from 1, be infinite; returns what is counted."""
    step, made = PreferenceLearner.loss, []

    def exploding(*arguments: Any) -> Any:
        output = step(*arguments)
        made.append(1)
        if len(made) in calls:
            output.loss.register_hook(lambda gradient: gradient * float("inf"))
            then()
        return output

    monkeypatch.setattr(PreferenceLearner, "loss", exploding)
    return made


def assert_same_course(run: Run, straight: Run, *, skipped: list[int]) -> None:
    """Weights, averages, moments and metrics are those of a run without a skip, which has its count besides."""
    ours, theirs = load_checkpoint(run.checkpoints), load_checkpoint(straight.checkpoints)
    assert ours.step == theirs.step == 4 and set(ours.tensors) == {"policy", "optimizer", "ema", "reference"}
    for stem, named in theirs.tensors.items():
        assert all(torch.equal(ours.tensors[stem][name], tensor) for name, tensor in named.items()), stem
    lines = metrics_of(run)
    assert [line.pop("skipped_steps") for line in lines] == skipped
    assert lines == [{k: v for k, v in line.items() if k != "skipped_steps"} for line in metrics_of(straight)]
    assert ours.scalars["skipped"] == skipped[-1] and ours.scalars["skipped_in_a_row"] == 0


def test_a_skipped_attempt_moves_nothing_and_the_run_makes_all_its_steps(
    new_run: MakeRun, monkeypatch: pytest.MonkeyPatch, updates: list[dict[str, float]]
) -> None:
    """Two micro-batches a step: the 3rd (step 2) and then the 6th (its second attempt) overflow; step 2 goes third."""
    straight, run = new_run("straight", **SETTINGS), new_run("run", **SETTINGS)
    train(straight)
    rates = [update["lr"] for update in updates]
    updates.clear()
    made = overflowing(monkeypatch, {3, 6})
    train(run)
    assert len(made) == 2 * (4 + 2)
    assert [update["lr"] for update in updates] == rates and len(rates) == 4
    assert_same_course(run, straight, skipped=[0, 2, 2, 2])
    scales = [load_checkpoint(one.checkpoints).scalars["scaler"]["scale"] for one in (run, straight)]
    assert scales == [2.0**8, 2.0**10]


def test_a_run_that_is_stopped_in_a_skipped_attempt_goes_on_as_if_it_had_not_been(
    new_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes in step 3's first attempt: what is saved is step 2; the next call skips nothing any more."""
    straight, run = new_run("straight", **SETTINGS), new_run("run", **SETTINGS)
    train(straight)
    overflowing(monkeypatch, {1, 7}, then=lambda: os.kill(os.getpid(), signal.SIGTERM) if run.metrics_path.exists()
                and len(run.metrics_path.read_text().splitlines()) == 2 else None)
    with pytest.raises(SystemExit) as left:
        train(run)
    assert left.value.code == PREEMPTED
    assert load_checkpoint(run.checkpoints).step == 2 and load_checkpoint(run.checkpoints).scalars["skipped"] == 1
    train(run)
    assert_same_course(run, straight, skipped=[1, 1, 1, 1])


def test_too_many_in_a_row_stop_the_run(new_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run("run", **SETTINGS)
    made = overflowing(monkeypatch, set(range(3, 1000)))
    with pytest.raises(NonFiniteError, match="the gradient is not finite at step 2"):
        train(run)
    assert len(made) == 2 + 2 * (MAX_SKIPPED_STEPS + 1)
    assert load_checkpoint(run.checkpoints).step == 1


def test_fp16_on_a_cpu_is_refused(new_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate would train in float32 and say nothing."""
    monkeypatch.undo()
    forget_precision()
    with pytest.raises(ConfigError, match="mixed_precision=fp16 needs a GPU, got a CPU; set bf16 or no"):
        train(new_run("run", mixed_precision="fp16", steps=1))
