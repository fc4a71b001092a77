"""Hours at the rate of real runs, worked again from what they logged."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smpo.cli.app import app
from smpo.cli.costing import as_json, as_text
from smpo.core.errors import ConfigError, DataError
from smpo.cost.estimate import Counts, estimate
from smpo.cost.measured import FIRST_STEPS, measured_hours
from smpo.pipeline.config import Recipe, load_recipe
from smpo.pipeline.stages import training_run
from smpo.training.trainer import train

COUNTS = Counts(10, 5, "")


@pytest.fixture(scope="module")
def new_recipe(artefacts, random_sd, tmp_path_factory) -> Callable[..., Recipe]:
    """DPO on the random pipeline, seven steps of four pairs: every pair takes 2 x 3 + 2 forwards."""
    folder = tmp_path_factory.mktemp("measured")

    def recipe(name: str, *changes: str) -> Recipe:
        return load_recipe("sd15-dpo", [
            f"name={name}", f"model.source={random_sd}", f"paths.workdir={folder / name}", "cache.resolution=32",
            *(f"paths.{part}={artefacts / part}" for part in ("pairs", "label", "cache")), "training.flips=none",
            "training.steps=7", "training.batch_size=4", "training.micro_batch_size=2", "training.trackers=[]",
            "training.workers=0", "training.mixed_precision='no'", *changes,
        ])

    return recipe


@pytest.fixture(scope="module")
def measured(new_recipe) -> tuple[Recipe, Path]:
    """A recipe and the folder of its run."""
    recipe = new_recipe("measured")
    run = training_run(recipe)
    train(run)
    return recipe, run.folder


def seconds(folder: Path) -> list[float]:
    """Of the steps that count."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["seconds"] for line in lines[FIRST_STEPS:]]


def test_a_runs_own_hours_are_its_median_seconds(measured) -> None:
    """Seven steps of the median of the last five; the work folder names the run as well."""
    recipe, folder = measured
    found = estimate(recipe, COUNTS)
    told = measured_hours(recipe, found, folder)
    assert (told.steps, told.differs, told.storing) == (5, {}, 0)
    assert told.training * 3600 == pytest.approx(7 * statistics.median(seconds(folder)))
    assert told.flop_per_s == pytest.approx(4 * 8 * found.forwards.unet / statistics.median(seconds(folder)))
    assert measured_hours(recipe, found, folder.parent) == told


def test_the_hours_of_another_recipe_follow_from_its_work(measured, new_recipe) -> None:
    """LoRA: 2 x 2 + 2 forwards in place of 8; cached inversions: 6, and before them 2 for each example that differs."""
    recipe, folder = measured
    at_rate = 7 * statistics.median(seconds(folder)) / 3600
    lora = new_recipe("lora", "training.lora={rank: 2}")
    told = measured_hours(lora, estimate(lora, COUNTS), folder)
    assert told.training == pytest.approx(at_rate * 6 / 8)
    assert told.differs.keys() == {"training.lora"} and told.differs["training.lora"][0] == "null"
    stored = new_recipe("stored", "training.cached_inversion_epochs=1", "training.micro_batch_size=4")
    found = estimate(stored, COUNTS)
    told = measured_hours(stored, found, folder)
    assert told.training == pytest.approx(at_rate * 6 / 8)
    assert told.storing == pytest.approx(at_rate * 2 / 8 * found.storing.examples / 28)
    assert told.differs == {"training.micro_batch_size": ("2", "4")}
    text = as_text(found, told)
    assert max(map(len, text.splitlines())) <= 100
    assert "that run had training.micro_batch_size=2 (here 4)" in " ".join(text.split())
    row = next(line for line in text.splitlines() if line.startswith("  as measured"))
    assert row.split()[2] == "-" and row.endswith(" achieved")
    assert json.loads(as_json(found, told))["measured"]["flop_per_s"] == told.flop_per_s


def test_a_run_that_has_just_begun_is_enough(new_recipe) -> None:
    """Interrupted in its third step, whose line is the first that counts; MaPO has no reference: 2 x 3 forwards."""
    recipe = new_recipe("begun", "objective.name=mapo")
    run = training_run(recipe)

    def stop(metrics: dict) -> None:
        if metrics["step"] == FIRST_STEPS + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, report=stop)
    found = estimate(recipe, COUNTS)
    told = measured_hours(recipe, found, run.folder)
    assert told.steps == 1
    assert told.flop_per_s == pytest.approx(4 * 6 * found.forwards.unet / seconds(run.folder)[0])
    lines = run.metrics_path.read_text().splitlines(keepends=True)
    run.metrics_path.write_text("".join(lines[:FIRST_STEPS]))
    with pytest.raises(DataError, match="has 2 logged steps, of which the first 2 do not count; let the run go on"):
        measured_hours(recipe, found, run.folder)
    old = [{key: value for key, value in json.loads(line).items() if "nfe" not in key} for line in lines]
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in old))
    with pytest.raises(DataError, match="tells no nfe_grad, nfe_no_grad, as runs of old did"):
        measured_hours(recipe, found, run.folder)


def test_what_measures_nothing_is_told_in_one_line(measured, new_recipe, tmp_path) -> None:
    half = new_recipe("half", "training.mixed_precision=bf16")
    found = estimate(half, COUNTS)
    with pytest.raises(ConfigError, match=r"has training.mixed_precision=no, the recipe bf16: its rate tells nothing"):
        measured_hours(half, found, measured[1])
    with pytest.raises(DataError, match=r"holds no training run \(recipe.yaml and metrics.jsonl\)"):
        measured_hours(half, found, tmp_path)


def test_the_verb(measured) -> None:
    recipe, folder = measured
    command = ["cost", str(folder / "recipe.yaml"), "--data", "10", "5", "--json", "--measured", str(folder)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["measured"] == {
        "folder": str(folder), "steps": 5, "differs": {}, "storing": 0.0,
        "flop_per_s": measured_hours(recipe, estimate(recipe, COUNTS), folder).flop_per_s,
        "training": pytest.approx(7 * statistics.median(seconds(folder)) / 3600),
    }
