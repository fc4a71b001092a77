"""What holds however tensors lie over processes: FSDP2, and ZeRO's two stages."""

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
from tests.training.test_distributed import on_processes
from tests.training.test_sharded import SMPO, assert_same_state, sharded
from tests.training.test_trajectories import assert_same_trajectory
from tests.training.test_zero import zero

MakeRun = Callable[..., Run]
Spread = Callable[[Callable[[], Any]], Callable[[], Any]]
ZERO_3 = partial(zero, stage=3)
SPREADS = pytest.mark.parametrize("parallel", [sharded, partial(zero, stage=2), ZERO_3],
                                  ids=["fsdp2", "zero2", "zero3"])


@pytest.mark.slow
@SPREADS
def test_three_processes_whose_shares_are_unequal(new_run: MakeRun, parallel: Spread) -> None:
    """Rows and vectors that three does not divide; saved by three, finished by one."""
    settings = {**SMPO, "batch_size": 6, "steps": 4}
    straight, changing = new_run("straight", **settings), new_run("changing", **settings)
    train(straight)
    cut = parallel(lambda: train(changing, report=lambda metrics: die() if metrics["step"] == 3 else None))
    assert -9 in on_processes(cut, processes=3)
    assert train(changing).resumed_from == 2
    assert_same_trajectory(changing, straight)
    assert_same_state(changing, straight, "optimizer")


@pytest.mark.slow
@SPREADS
def test_a_run_changes_how_it_is_spread_whenever_it_resumes(new_run: MakeRun, parallel: Spread) -> None:
    """One process, two that split, two whole (DDP), two that split, one; each is killed, and the next takes its place.

    With a moving average, where there may be one.
    """
    averages = {} if parallel is ZERO_3 else {"ema_decay": 0.9}
    settings = {**SMPO, "steps": 6, **averages}
    straight, changing = new_run("straight", **settings), new_run("changing", **settings)
    train(straight)

    def until(step: int) -> Callable[[], Any]:
        return lambda: train(changing, report=lambda metrics: die() if metrics["step"] == step else None)

    assert exit_code(until(2)) == -9
    for work, saved in ((parallel(until(3)), 2), (until(4), 3), (parallel(until(5)), 4)):
        assert -9 in on_processes(work)
        assert load_checkpoint(changing.checkpoints).step == saved
    assert train(changing).resumed_from == 4
    assert_same_trajectory(changing, straight)
    assert_same_state(changing, straight, "optimizer", *(["ema"] if averages else []))


@pytest.mark.slow
@SPREADS
def test_a_signal_to_one_process_makes_both_leave_after_the_same_step(new_run: MakeRun, parallel: Spread) -> None:
    settings = {**SMPO, "steps": 4, "checkpoint_every": 100}
    straight, preempted = new_run("straight", **settings), new_run("preempted", **settings)
    train(straight)

    def signalled() -> None:
        train(preempted, report=lambda m: os.kill(os.getpid(), signal.SIGTERM) if m["step"] == 1 else None)

    assert on_processes(parallel(signalled)) == [75, 75]
    assert [path.name for path in checkpoints(preempted.checkpoints)] == ["step-00000002"]
    train(preempted)
    assert_same_trajectory(preempted, straight)
