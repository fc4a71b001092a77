"""FSDP2, with and without offloading: its checkpoints resume everywhere, and its processes stop together."""

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from smpo.training.checkpoint import checkpoints, load_checkpoint
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.training.outcomes import die, exit_code
from tests.training.parallel.processes import on_processes
from tests.training.parallel.test_fsdp2 import OFFLOAD, SMPO, assert_same_state, sharded
from tests.training.test_trajectories import assert_same_trajectory

MakeRun = Callable[..., Run]
Launch = Callable[[Callable[[], Any]], Callable[[], Any]]
LAUNCHES = pytest.mark.parametrize("launch", [sharded, partial(sharded, **OFFLOAD)], ids=["fsdp2", "offload"])


@pytest.mark.slow
@LAUNCHES
def test_three_processes_whose_shares_are_unequal(new_run: MakeRun, launch: Launch) -> None:
    """Rows that three does not divide; saved by three, finished by one."""
    settings = {**SMPO, "batch_size": 6, "steps": 4}
    straight, changing = new_run("straight", **settings), new_run("changing", **settings)
    train(straight)
    cut = launch(lambda: train(changing, report=lambda metrics: die() if metrics["step"] == 3 else None))
    assert -9 in on_processes(cut, processes=3)
    assert train(changing).resumed_from == 2
    assert_same_trajectory(changing, straight)
    assert_same_state(changing, straight, "optimizer")


@pytest.mark.slow
@LAUNCHES
def test_a_run_changes_how_it_is_parallel_whenever_it_resumes(new_run: MakeRun, launch: Launch) -> None:
    """One process, two that split, two whole (DDP), two that split, one; each is killed, and the next takes its place.

    With a moving average.
    """
    settings = {**SMPO, "steps": 6, "ema_decay": 0.9}
    straight, changing = new_run("straight", **settings), new_run("changing", **settings)
    train(straight)

    def until(step: int) -> Callable[[], Any]:
        return lambda: train(changing, report=lambda metrics: die() if metrics["step"] == step else None)

    assert exit_code(until(2)) == -9
    for work, saved in ((launch(until(3)), 2), (until(4), 3), (launch(until(5)), 4)):
        assert -9 in on_processes(work)
        assert load_checkpoint(changing.checkpoints).step == saved
    assert train(changing).resumed_from == 4
    assert_same_trajectory(changing, straight)
    assert_same_state(changing, straight, "optimizer", "ema")


@pytest.mark.slow
@LAUNCHES
def test_a_signal_to_one_process_makes_both_leave_after_the_same_step(new_run: MakeRun, launch: Launch) -> None:
    settings = {**SMPO, "steps": 4, "checkpoint_every": 100}
    straight, preempted = new_run("straight", **settings), new_run("preempted", **settings)
    train(straight)

    def signalled() -> None:
        train(preempted, report=lambda m: os.kill(os.getpid(), signal.SIGTERM) if m["step"] == 1 else None)

    assert on_processes(launch(signalled)) == [75, 75]
    assert [path.name for path in checkpoints(preempted.checkpoints)] == ["step-00000002"]
    train(preempted)
    assert_same_trajectory(preempted, straight)
