"""Every shipped recipe trains for two optimizer steps, through the real stages, on the tiny model of its family."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

from smpo.core.artefacts import fingerprint
from smpo.core.errors import ConfigError
from smpo.cost.examples import example_cost
from smpo.pipeline.config import PathsSection, Recipe, load_recipe
from smpo.pipeline.recipe_files import shipped_recipes
from smpo.pipeline.stages import run_stage, stages_of
from tests.tiny_people import write_people

WEIGHTS = "package://smpo.tiny/weights"
MODELS = {"sd": f"{WEIGHTS}/tiny-sd", "sdxl": f"{WEIGHTS}/tiny-sdxl"}
PIPELINES = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
REWARD = {"name": "pickscore", "source": f"{WEIGHTS}/tiny-reward", "processor": f"{WEIGHTS}/tiny-reward"}
CLIP = {"name": "clip", "source": f"{WEIGHTS}/tiny-clip"}
STEPS, BATCH, MICRO = 2, 4, 2
FAST = ("sd15-kto", "sdxl-mapo", "tiny-linear")
NAMES = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in shipped_recipes()]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose pairs, scores and caches the recipes share."""
    work = tmp_path_factory.mktemp("recipes")
    write_people(work, 30)
    return work


def shrunk(name: str, work: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The shipped recipe on tiny models and scorers and 30 pairs; its seams, optimizer and options are its own.

    bf16 is left out: it takes minutes on a CPU that has none.
    """
    own = load_recipe(name)
    settings: dict[str, Any] = {
        "model.source": MODELS[own.model["name"]], "sampling": None, "data.source": str(work / "people.jsonl"),
        "evaluation.scorers": {"reward": REWARD}, "cache.resolution": 64, "training.steps": STEPS,
        "training.batch_size": BATCH, "training.micro_batch_size": MICRO, "training.checkpoint_every": STEPS,
        "training.workers": 0, "training.trackers": [], "training.mixed_precision": "no",
        **(changes or {}),
    }
    if own.init_weights is not None:
        settings["init_weights"] = MODELS[own.model["name"]]
    if own.scorer is not None:
        settings |= {"scorer": REWARD, "scoring.also": dict.fromkeys(own.scoring.also, CLIP)}
    if own.labels.get("scorers"):
        others = own.scoring.also
        settings["labels.scorers"] = [one if one in others else REWARD["name"] for one in own.labels["scorers"]]
    recipe = load_recipe(name, overrides(settings))
    pairs = fingerprint(recipe.data.model_dump(mode="json"))[:8]
    cache = fingerprint([recipe.model, recipe.cache.model_dump(mode="json")])[:8]
    homes = {artefact: work / recipe.name / artefact for artefact in PathsSection.model_fields}
    homes |= {"workdir": work / recipe.name, "store": work / "store", "pairs": work / f"pairs-{pairs}"}
    homes |= {"score": work / f"score-{pairs}", "cache": work / f"cache-{pairs}-{cache}"}
    paths = {f"paths.{artefact}": str(home) for artefact, home in homes.items()}
    return load_recipe(name, overrides({**settings, **paths}))


def overrides(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def run(recipe: Recipe, last: str) -> None:
    """All stages up to `last`."""
    stages = stages_of(recipe)
    for stage in stages[: stages.index(last) + 1]:
        run_stage(stage, recipe, lambda *_: None)


@pytest.mark.parametrize("name", NAMES)
def test_two_steps(name: str, work: Path) -> None:
    """Finite losses, the work that `smpo show` tells, a saved recipe that is complete, a model that diffusers opens."""
    recipe = shrunk(name, work)
    run(recipe, "train")
    out, cost = recipe.folder("train"), example_cost(recipe)
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == STEPS and all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in metrics)
    assert {line["nfe_grad"] for line in metrics} == {cost.nfe_grad}
    if recipe.noising["name"] == "forward" or recipe.noising.get("grid") == "subdivide":
        assert {line["nfe_no_grad"] for line in metrics} == {cost.nfe_no_grad}
    assert load_recipe(str(out / "recipe.yaml")) == recipe
    assert f"{STEPS} optimizer steps of {BATCH} {cost.seen}" in (out / "model" / "README.md").read_text()
    pipeline = DiffusionPipeline.from_pretrained(out / "model")
    assert type(pipeline) is PIPELINES[recipe.model["name"]]


def test_the_stage_runs_where_visits_are_stored_and_nowhere_else(tmp_path: Path) -> None:
    assert stages_of(load_recipe("tiny-smpo-cached"))[-5:] == ["invert", "train", "generate", "evaluate", "report"]
    plain = load_recipe("tiny-demo", [f"paths.workdir={tmp_path}"])
    assert "invert" not in stages_of(plain)
    with pytest.raises(ConfigError, match="training.cached_inversion_epochs: not set"):
        run_stage("invert", plain, lambda *_: None)


@pytest.mark.slow
def test_a_store_that_is_there_is_left_alone(work: Path) -> None:
    recipe = shrunk("tiny-smpo-cached", work)
    run(recipe, "invert")
    assert run_stage("invert", recipe, lambda *_: None)[0] == (
        f"8 examples in {recipe.folder('invert')}, 0.0 MB, already done"
    )


@pytest.mark.slow
def test_a_recipe_with_a_row_of_the_paper_goes_to_the_report(work: Path) -> None:
    """The paper's numbers stand beside ours, whatever name the run has."""
    (work / "prompts.txt").write_text("a red boat\na blue cat\n")
    scorers = dict.fromkeys(load_recipe("sd15-dpo").evaluation.scorers, CLIP)
    recipe = shrunk("sd15-dpo", work, {
        "name": "mine", "evaluation.scorers": scorers, "generation.prompts": str(work / "prompts.txt"),
        "generation.num_inference_steps": 1, "report.browser": False,
    })
    run(recipe, "report")
    table = (recipe.folder("report") / "tables.md").read_text()
    assert "| *paper, sd15/dpo on hpdv2* | 21.29 |" in table and "| *paper, sd15/base on hpdv2* | 20.83 |" in table
