"""Trackers: what TensorBoard's files and W&B's offline runs hold, read back; what is not installed is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smpo.core.errors import ConfigError
from smpo.training.run import Run
from smpo.training.tracking import WANDB_ID, check_trackers, hyper_parameters
from smpo.training.trainer import train

MakeRun = Callable[..., Run]
SAMPLES = {"every": 2, "prompts": ("a thing",), "num_inference_steps": 1}


def test_settings_are_flat_plain_values() -> None:
    recipe = "name: a\nseed: 3\ntraining: {lr: 1.0e-05, flips: true, betas: [0.9, 1], ema: null}\nx: {}\n"
    found = hyper_parameters(recipe)
    assert found == {"name": "a", "seed": 3, "training.lr": 1e-5, "training.flips": True, "training.betas": "[0.9, 1]",
                     "training.ema": "null", "x": "{}"}


def test_a_tracker_that_is_not_installed_is_refused_by_name_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smpo.training.tracking.find_spec", lambda name: None if name == "aim" else name)
    check_trackers(["tensorboard"])
    with pytest.raises(ConfigError, match=r"^training.trackers: aim is not installed; pip install aim, or leave it"):
        check_trackers(["tensorboard", "aim"])


def test_tensorboard_gets_settings_and_pictures_and_a_resumed_run_goes_on(new_run: MakeRun) -> None:
    tracking = {"trackers": ("tensorboard",), "samples": SAMPLES, "tracking": {"project": "mine"}}
    train(new_run("run", steps=2, **tracking))
    run = new_run("run", steps=4, **tracking)
    train(run)
    folder = run.folder / "logs" / "mine"
    board = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert [event.step for event in board.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.step for event in board.Images("samples")] == [2, 4]
    assert "name: test" in (next(folder.rglob("hparams.yml"))).read_text()


def test_wandb_offline_gets_project_name_settings_pictures_and_keeps_its_id(
    new_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    tracking = {"trackers": ("wandb",), "samples": SAMPLES, "tracking": {"project": "mine", "run": "first"}}
    train(new_run("run", steps=2, **tracking))
    identity = (new_run("run").folder / WANDB_ID).read_text().strip()
    run = new_run("run", steps=4, **tracking)
    train(run)
    folders = sorted((run.folder / "wandb").glob("offline-run-*"))
    assert {folder.name.rpartition("-")[2] for folder in folders} == {identity}
    assert {path.name.split("_")[1] for path in run.folder.rglob("samples_*.png")} == {"2", "4"}
    records = b"".join(path.read_bytes() for path in run.folder.rglob("*.wandb"))
    for text in ("mine", "first", identity, "implicit_accuracy", "name"):
        assert text.encode() in records
    assert not (Path.cwd() / "wandb").exists()
