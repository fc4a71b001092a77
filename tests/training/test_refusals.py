"""What a run refuses, in words that name the difference."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from smpo.core.artefacts import read_manifest
from smpo.core.errors import ConfigError, DataError, StaleError
from smpo.data.pair_set import PairSet
from smpo.preparation.cache import LatentCache
from smpo.preparation.label import LabelTable
from smpo.training.options import OptimizerOptions, TrainingOptions
from smpo.training.run import Run
from smpo.training.sources.pairs import TrainingPairs
from smpo.training.trainer import train
from tests.training.conftest import prepare, write_jsonl_pairs
from tests.training.outcomes import die, exit_code

MakeRun = Callable[..., Run]
OTHER_SETTINGS = {
    "training.optimizer.lr": {"optimizer": {"lr": 2e-3}},
    "training.batch_size": {"batch_size": 2},
    "training.caption_dropout": {"caption_dropout": 0.5},
    "training.ema_decay": {"ema_decay": 0.9},
    "training.reference_ema_decay": {"reference_ema_decay": 0.9},
    "objective.beta": {"objective": {"name": "smpo", "beta": 1.0, "gamma": 1.0}},
    "seed": {"seed": 1},
}


@pytest.mark.parametrize("key", OTHER_SETTINGS)
def test_other_settings_in_the_same_folder_are_refused_by_name(new_run: MakeRun, key: str) -> None:
    train(new_run("run", steps=1))
    with pytest.raises(StaleError, match=f"{key}="):
        train(new_run("run", steps=1, **OTHER_SETTINGS[key]))


def test_other_inputs_in_the_same_folder_are_refused_by_name(new_run: MakeRun) -> None:
    run = new_run("run", steps=1)
    train(run)
    with pytest.raises(StaleError, match="input.cache="):
        train(replace(run, inputs={"cache": "another"}))


def test_settings_of_speed_alone_are_no_other_settings(new_run: MakeRun) -> None:
    train(new_run("run", steps=1))
    speed = {"micro_batch_size": 1, "checkpoint_every": 7, "keep_checkpoints": 5, "log_every": 3, "workers": 1}
    assert train(new_run("run", steps=1, **speed)).skipped


def test_a_frozen_reference_is_no_setting_so_that_runs_from_before_the_choice_stay_current(new_run: MakeRun) -> None:
    run = new_run("run", steps=1, reference_ema_decay=None)
    train(run)
    assert "reference_ema_decay" not in read_manifest(run.folder, stage="train")["settings"]["training"]


def test_fewer_steps_than_a_finished_run_has_done_are_refused(new_run: MakeRun) -> None:
    train(new_run("run", steps=2))
    with pytest.raises(StaleError, match="trained for 2 steps, asked for 1"):
        train(new_run("run", steps=1))


def test_fewer_steps_than_an_interrupted_run_has_done_are_refused(new_run: MakeRun) -> None:
    """Else its weights of step 3 would be saved as those of step 2."""
    run = new_run("run", steps=5)
    code = exit_code(lambda: train(run, report=lambda metrics: die() if metrics["step"] == 4 else None))
    assert code == -9
    with pytest.raises(StaleError, match="trained for 3 steps, asked for 2"):
        train(new_run("run", steps=2))


def test_more_steps_under_a_schedule_that_knows_the_last_step_are_refused(new_run: MakeRun) -> None:
    cosine = {"optimizer": {"lr": 1e-3, "schedule": "cosine"}}
    train(new_run("run", steps=1, **cosine))
    with pytest.raises(StaleError, match=r"training.steps=1 \(now 2\)"):
        train(new_run("run", steps=2, **cosine))


def options(**settings: Any) -> TrainingOptions:
    return TrainingOptions(**{"steps": 1, "optimizer": OptimizerOptions(lr=1.0), **settings})


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be a multiple of micro_batch_size 4, got 6"):
        options(batch_size=6, micro_batch_size=4)
    message = (
        "training.batch_size must be a multiple of micro_batch_size x processes = 2 x 2, got 6; "
        "change micro_batch_size or the number of processes"
    )
    with pytest.raises(ConfigError) as error:
        options(batch_size=6, micro_batch_size=2).accumulation(2)
    assert str(error.value) == message
    assert options(batch_size=8, micro_batch_size=2).accumulation(2) == 2


@pytest.mark.parametrize("part", ["label", "cache"])
def test_artefacts_of_other_pairs_are_refused_even_of_the_same_number(
    sd_artefacts: Path, random_sd: Path, tmp_path: Path, part: str
) -> None:
    other = prepare(tmp_path, write_jsonl_pairs(tmp_path / "source", size=(32, 48)), random_sd, "sd")
    roots = {"label": sd_artefacts, "cache": sd_artefacts, part: other}
    pairs = PairSet.open(sd_artefacts / "pairs")
    labels, cache = LabelTable.open(roots["label"] / "label"), LatentCache(roots["cache"] / "cache")
    with pytest.raises(DataError, match=f"`smpo {part}` read other pairs"):
        TrainingPairs(pairs, labels, cache)


def test_flips_that_were_not_cached_are_refused(new_run: MakeRun) -> None:
    run = new_run("run")
    run.cache.flips = False
    with pytest.raises(ConfigError, match="training.flips=independent needs mirrored views"):
        run.source  # noqa: B018 -- made on use


def test_processes_that_accelerate_does_not_find_are_refused(new_run: MakeRun) -> None:
    """Of two processes that know no LOCAL_RANK each would train for itself, in the same folder."""
    run = new_run("run", steps=1)

    def complain() -> None:
        os.environ.update(WORLD_SIZE="2", RANK="0")
        AcceleratorState._reset_state(reset_partial_state=True)
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(ConfigError, match="WORLD_SIZE is 2, but accelerate has found 1 process; .*LOCAL_RANK, too"),
        ):
            patch.setattr(torch.accelerator, "is_available", lambda: True)
            train(run)

    assert exit_code(complain) == 0
    assert not run.folder.exists()
