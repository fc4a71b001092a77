"""Two processes (gloo) do what one does; a run may change their number whenever it resumes."""

import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from smpo.core.errors import NonFiniteError
from smpo.training.checkpoint import checkpoints, damage, load_checkpoint
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.ranks import free_port
from tests.training.outcomes import die, exit_code, metrics_of, outcome
from tests.training.parallel.processes import in_shell, on_processes
from tests.training.test_non_finite import DamagedCache, row_at
from tests.training.test_trajectories import GENTLE, KTO, assert_same_trajectory

MakeRun = Callable[..., Run]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_two_processes_train_what_one_trains(new_run: MakeRun, optimizer: str) -> None:
    """Equal training.batch_size; two micro-batches on each process against four on one."""
    settings = {**GENTLE, "micro_batch_size": 1, "optimizer": {**GENTLE["optimizer"], "name": optimizer}}
    one, two = new_run("one", **settings), new_run("two", **settings)
    train(one)
    assert on_processes(lambda: train(two)) == [0, 0]
    # Adafactor divides a gradient by the root of its row's and column's means: on some processors the rounding of a
    # small one becomes 1.9e-6 of a weight
    assert_same_trajectory(two, one, atol=3e-6 if optimizer == "adafactor" else 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch_size", [1, 2])
def test_the_reference_point_goes_over_all_processes(new_run: MakeRun, micro_batch_size: int) -> None:
    """Two processes of two images, in one pass or accumulated from passes ahead, against four images in one pass."""
    one = new_run("one", **{**KTO, "micro_batch_size": 4})
    two = new_run("two", **{**KTO, "micro_batch_size": micro_batch_size})
    train(one)
    assert on_processes(lambda: train(two)) == [0, 0]
    assert metrics_of(two)[0]["nfe_no_grad"] == {1: 2, 2: 1}[micro_batch_size]
    assert_same_trajectory(two, one, but=("nfe_no_grad",))
    assert max(line["reference_point"] for line in metrics_of(one)) > 1e-5


@pytest.mark.slow
def test_a_moving_reference_moves_alike_on_processes(new_run: MakeRun) -> None:
    settings = {**GENTLE, "micro_batch_size": 2, "reference_ema_decay": 0.5}
    one, two = new_run("one", **settings), new_run("two", **settings)
    train(one)
    assert on_processes(lambda: train(two)) == [0, 0]
    assert_same_trajectory(two, one)
    references = [load_checkpoint(run.checkpoints).tensors["reference"] for run in (one, two)]
    torch.testing.assert_close(*references, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_a_run_changes_its_number_of_processes_when_it_resumes(new_run: MakeRun) -> None:
    settings = {**GENTLE, "micro_batch_size": 2, "steps": 6}
    straight, changing = new_run("straight", **settings), new_run("changing", **settings)
    train(straight)

    def until(step: int) -> Callable[[], Any]:
        return lambda: train(changing, report=lambda metrics: die() if metrics["step"] == step else None)

    assert exit_code(until(3)) == -9
    assert -9 in on_processes(until(5))
    assert load_checkpoint(changing.checkpoints).step == 4
    assert train(changing).resumed_from == 4
    assert_same_trajectory(changing, straight)


@pytest.mark.slow
def test_a_bad_loss_on_one_process_stops_both_and_names_its_pair(new_run: MakeRun, tmp_path: Path) -> None:
    """The pair at position 7 is the second process's, in step 2."""
    run = new_run("run", micro_batch_size=2, steps=3)
    row = row_at(run, 7)
    bad = replace(run, cache=DamagedCache(run.cache.folder, run.pairs.cache_rows[row]))

    def complain() -> None:
        try:
            train(bad)
        except NonFiniteError as error:
            (tmp_path / f"error-{os.environ['RANK']}").write_text(str(error))

    assert on_processes(complain) == [0, 0]
    for rank in (0, 1):
        message = (tmp_path / f"error-{rank}").read_text()
        name = re.escape(run.pairs.pair_ids[row])
        assert re.search(rf"1 losses are not finite at step 2 \(examples {name}\);", message)
    assert load_checkpoint(run.checkpoints).step == 1


@pytest.mark.slow
def test_a_signal_to_one_process_makes_both_leave_after_the_same_step(new_run: MakeRun) -> None:
    settings = {**GENTLE, "steps": 5, "micro_batch_size": 2, "checkpoint_every": 100}
    straight, preempted = new_run("straight", **settings), new_run("preempted", **settings)
    train(straight)

    def signalled() -> None:
        train(preempted, report=lambda m: os.kill(os.getpid(), signal.SIGTERM) if m["step"] == 2 else None)

    assert on_processes(signalled) == [75, 75]
    assert [path.name for path in checkpoints(preempted.checkpoints)] == ["step-00000003"]
    assert damage(checkpoints(preempted.checkpoints)[0]) is None
    assert [line["step"] for line in metrics_of(preempted)] == [1, 2, 3]
    assert on_processes(lambda: train(preempted)) == [0, 0]
    assert_same_trajectory(preempted, straight)


@pytest.mark.slow
def test_the_launcher_and_a_killed_process_of_its_own(
    new_run: MakeRun, sd_artefacts: Path, random_sd: Path
) -> None:
    """From a shell: two processes by torchrun, killed after step 2, then one process."""
    settings = {**GENTLE, "micro_batch_size": 2}
    straight, shell = new_run("straight", **settings), new_run("shell", **settings)
    train(straight)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
                "--master_port", str(free_port()), "-m"]
    killed = in_shell(launcher, sd_artefacts, shell, random_sd, settings, kill_after=2)
    assert killed != 0 and load_checkpoint(shell.checkpoints).step == 1
    assert in_shell([sys.executable, "-m"], sd_artefacts, shell, random_sd, settings) == 0
    assert_same_trajectory(shell, straight)
    assert outcome(shell)["metrics"][-1]["step"] == 3
