"""Killed at any moment and started again, a run ends with the same bytes as one that was never disturbed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smpo.core.locks import LOCK
from smpo.training import trainer
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.training.faults import PowerCut
from tests.training.outcomes import die, exit_code, flip_byte, metrics_of, outcome

MakeRun = Callable[..., Run]
VARIANTS = {
    "adamw": {},
    "moving reference, accumulated kto": {"objective": {"name": "kto", "beta": 50.0}, "reference_ema_decay": 0.9},
    "renoise, sparse checkpoints": {"noising": {"name": "renoise", "inversion_steps": 2}, "checkpoint_every": 3},
}
SLOW_VARIANTS = {
    "adafactor": {"optimizer": {"name": "adafactor", "lr": 1e-3}},
    "ema": {"ema_decay": 0.9},
    "cosine with warm-up": {"optimizer": {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 3}},
}


def train_and_die(run: Run, *, after_step: int) -> None:
    """Train until the metrics of `after_step` are logged, before its checkpoint is saved."""

    def report(metrics: dict[str, Any]) -> None:
        if metrics["step"] == after_step:
            die()

    train(run, report=report)


def each(variants: dict[str, dict], *marks: pytest.MarkDecorator) -> list[Any]:
    return [pytest.param(settings, id=name, marks=marks) for name, settings in variants.items()]


@pytest.mark.parametrize("variant", each(VARIANTS) + each(SLOW_VARIANTS, pytest.mark.slow))
def test_killed_three_times_equals_never_killed(new_run: MakeRun, variant: dict[str, Any]) -> None:
    """Twice within the second epoch (steps 3 and 4 of pairs 10-19) and at the end of it (after step 5)."""
    straight, killed = (new_run(name, **variant) for name in ("straight", "killed"))
    train(straight)
    for step in (3, 4, 6):
        assert exit_code(lambda step=step: train_and_die(killed, after_step=step)) == -9
    resumed = train(killed)
    assert resumed.resumed_from == {1: 5, 3: 3}[variant.get("checkpoint_every", 1)]
    assert outcome(killed) == outcome(straight)
    assert [line["step"] for line in metrics_of(killed)] == list(range(1, 8))


def test_dropout_in_the_unet_draws_the_same_after_a_kill(new_run: MakeRun, other_unet: str) -> None:
    straight, killed = (new_run(name, init_weights=other_unet, steps=4) for name in ("straight", "killed"))
    train(straight)
    assert exit_code(lambda: train_and_die(killed, after_step=3)) == -9
    train(killed)
    assert outcome(killed) == outcome(straight)


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, 8))
def test_killed_after_any_step_equals_never_killed(new_run: MakeRun, step: int) -> None:
    straight, killed = new_run("straight"), new_run("killed")
    train(straight)
    assert exit_code(lambda: train_and_die(killed, after_step=step)) == -9
    assert train(killed).resumed_from == step - 1
    assert outcome(killed) == outcome(straight)


def train_with_power_cut(run: Run, *, at: int) -> None:
    """Train, losing power at disk-changing call `at` counted from the start of the second checkpoint."""
    power, save = PowerCut(at), trainer.save_checkpoint

    def arm(folder: Path, state: Any, *, keep: int) -> Path:
        power.armed = power.armed or state.step == 2
        return save(folder, state, keep=keep)

    trainer.save_checkpoint = arm
    train(run)


@pytest.mark.slow
def test_a_power_cut_at_any_call_from_a_save_to_the_result_changes_nothing(new_run: MakeRun) -> None:
    """Sweeps one save, the pruning of an old checkpoint, the model folder and the manifest of the result."""
    short = {"steps": 3, "keep_checkpoints": 1, "ema_decay": 0.9, "batch_size": 2}
    straight = new_run("straight", **short)
    train(straight)
    at, code = 0, -9
    while code == -9:
        cut = new_run(f"cut-{at}", **short)
        code = exit_code(lambda at=at, cut=cut: train_with_power_cut(cut, at=at))
        train(cut)
        assert outcome(cut) == outcome(straight), f"power cut at call {at}"
        at += 1
    assert code == 0 and at > 30


@pytest.mark.slow
def test_a_power_cut_while_the_folder_is_opened_does_not_block_it(new_run: MakeRun) -> None:
    for at in range(5):
        run = new_run(f"cut-{at}", steps=1)

        def start(at: int = at, run: Run = run) -> None:
            PowerCut(at).armed = True
            train(run)

        assert exit_code(start) == -9
        assert train(run).steps == 1


@pytest.mark.filterwarnings("ignore:.*is damaged")
@pytest.mark.parametrize("damaged", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_damaged_checkpoints_cost_steps_but_change_no_weights(new_run: MakeRun, damaged: int) -> None:
    """One damaged: the one before is used; all damaged: the run starts from scratch."""
    straight, killed = new_run("straight"), new_run("killed")
    train(straight)
    assert exit_code(lambda: train_and_die(killed, after_step=6)) == -9
    for step in (5, 4)[:damaged]:
        flip_byte(killed.checkpoints / f"step-{step:08d}" / "policy.safetensors")
    assert train(killed).resumed_from == {1: 4, 2: 0}[damaged]
    assert outcome(killed) == outcome(straight)


def test_a_finished_run_is_left_alone(new_run: MakeRun) -> None:
    run = new_run("run", steps=2)
    train(run)

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != LOCK}

    before = times()
    report = train(run)
    assert report.skipped and times() == before


def test_more_steps_carry_on_to_the_straight_longer_run(new_run: MakeRun) -> None:
    straight, extended = new_run("straight"), new_run("extended")
    train(straight)
    train(new_run("extended", steps=4))
    assert train(extended).resumed_from == 4
    assert outcome(extended) == outcome(straight)


@pytest.mark.slow
def test_a_torn_metrics_line_is_dropped_and_written_again(new_run: MakeRun) -> None:
    straight, killed = new_run("straight"), new_run("killed")
    train(straight)
    assert exit_code(lambda: train_and_die(killed, after_step=4)) == -9
    with open(killed.metrics_path, "a") as file:
        file.write('{"step": 5, "loss": 0.6')
    train(killed)
    assert metrics_of(killed) == metrics_of(straight)
