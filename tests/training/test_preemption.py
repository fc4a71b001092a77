"""Ctrl-C, SIGTERM and SIGUSR1: save the last whole step, exit with 130 or 75, carry on with the same command."""

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smpo.core.errors import Stopped
from smpo.core.signals import remembered
from smpo.training.checkpoint import checkpoints, damage
from smpo.training.learners.preference import PreferenceLearner
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.training.outcomes import metrics_of, outcome, start_child

MakeRun = Callable[..., Run]


def send_after_step(number: int, step: int) -> Callable[[dict[str, Any]], None]:
    """A report callback that signals this process."""
    return lambda metrics: os.kill(os.getpid(), number) if metrics["step"] == step else None


def assert_only_checkpoint(run: Run, step: int) -> None:
    assert [path.name for path in checkpoints(run.checkpoints)] == [f"step-{step:08d}"]
    assert damage(checkpoints(run.checkpoints)[0]) is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_exits_and_the_same_command_completes(new_run: MakeRun, number: int, code: int) -> None:
    straight, preempted = (new_run(name, steps=5, checkpoint_every=100) for name in ("straight", "preempted"))
    train(straight)
    with pytest.raises(SystemExit) as left:
        train(preempted, report=send_after_step(number, 3))
    assert left.value.code == code and left.value.message == "saved at step 3; run the same command to go on"
    assert_only_checkpoint(preempted, 3)
    assert train(preempted).resumed_from == 3
    assert outcome(preempted) == outcome(straight)
    assert [line["step"] for line in metrics_of(preempted)] == [1, 2, 3, 4, 5]


def test_a_signal_between_micro_batches_saves_the_step_before(
    new_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, preempted = (new_run(name, steps=4, checkpoint_every=100) for name in ("straight", "preempted"))
    train(straight)
    step, calls = PreferenceLearner.loss, []

    def signalling(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:  # the first of step 3's two micro-batches
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(PreferenceLearner, "loss", signalling)
    with pytest.raises(SystemExit):
        train(preempted)
    assert len(calls) == 5
    assert_only_checkpoint(preempted, 2)
    monkeypatch.undo()
    train(preempted)
    assert outcome(preempted) == outcome(straight)


def test_a_second_ctrl_c_does_not_wait_for_the_step(new_run: MakeRun, capfd: pytest.CaptureFixture[str]) -> None:
    def press_twice(metrics: dict[str, Any]) -> None:
        if metrics["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    run = new_run("run", steps=5, checkpoint_every=2)
    with pytest.raises(Stopped) as left:
        train(run, report=press_twice)
    assert left.value.code == 130 and left.value.message.startswith("stopped at once, at the last checkpoint; ")
    assert_only_checkpoint(run, 2)
    assert capfd.readouterr().err.count("Ctrl-C again stops at once\n") == 1


def test_one_press_that_a_launcher_passes_on_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with remembered() as received:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    assert received == [signal.SIGINT, signal.SIGINT]


def test_a_stop_keeps_code_and_message_on_its_way_from_a_worker() -> None:
    stop = pickle.loads(pickle.dumps(Stopped(75, "saved")))
    assert (stop.code, stop.message) == (75, "saved")


def test_handlers_are_put_back(new_run: MakeRun) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(new_run("run", steps=1))
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_to_the_whole_process_group_leaves_in_time(new_run: MakeRun, workers: int) -> None:
    """Schedulers signal every process of a job, the loader's workers too; these must not drag the run down."""
    settings = {"steps": 200, "checkpoint_every": 1000, "workers": workers}
    run = new_run("run", **settings)

    def in_own_group() -> None:
        os.setsid()
        train(run)

    child = start_child(in_own_group)
    wait_for_lines(run.metrics_path, 3)
    os.killpg(child.pid, signal.SIGTERM)
    asked = time.monotonic()
    child.join(timeout=60)
    assert child.exitcode == 75
    assert time.monotonic() - asked < 30  # seconds on an idle core are 1 or 2
    assert_only_checkpoint(run, len(metrics_of(run)))


def wait_for_lines(path: Path, count: int) -> None:
    for _ in range(1200):
        if path.exists() and path.read_text().count("\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} has not {count} lines after a minute")
