"""What ships is described rightly: headers, the list, the explanation of each recipe, the docs' table."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smpo.cli import showing
from smpo.cli.app import app
from smpo.cli.explaining import explanation
from smpo.cost.examples import ExampleCost, example_cost, invert_nfe
from smpo.pipeline.config import load_recipe
from smpo.pipeline.reading import lineage
from smpo.pipeline.recipe_files import recipe_path, shipped_recipes, shipped_sweeps
from smpo.report.published import FILE
from smpo.sweep.plan import load_sweep

NAMES = shipped_recipes()
METRICS = {"pickscore": "PickScore", "hpsv2": "HPSv2.1", "imagereward": "ImageReward", "aesthetic": "aesthetic",
           "clip": "CLIP"}
DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"


def header(name: str) -> str:
    """The comment of a recipe as one line."""
    return " ".join(line.removeprefix("#").strip() for line in showing.comments_of(text(name)).splitlines())


def text(name: str) -> str:
    return recipe_path(name).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_what_it_is_the_command_and_the_papers_number(name: str) -> None:
    first, second = text(name).splitlines()[:2]
    assert re.fullmatch(r"# [^:]+ on [^:]+: \S.*", first)
    verb, *arguments = second.removeprefix("#   smpo ").partition("(")[0].split()
    assert second.startswith("#   smpo ") and verb in ("run", "demo", "sweep")
    if verb == "run":
        assert arguments[0] == name and load_recipe(name, arguments[1:])
    published = load_recipe(name).report.published
    if published is None or "trained" not in published.models:
        assert "Paper: none" in header(name)
        return
    medians = {model: [published.text(model, scorer, "median") for scorer in METRICS] for model in published.models}
    trained = ", ".join(f"{metric} {value}" for metric, value in zip(METRICS.values(), medians["trained"], strict=True))
    assert f"medians on HPDv2: {trained} (base {', '.join(medians['base'])})" in header(name)


@pytest.mark.parametrize("name", [name for name in NAMES if len(lineage(name)) > 1])
def test_a_recipe_on_a_base_has_its_comments_in_its_header_where_show_keeps_them(name: str) -> None:
    assert "#" not in text(name).removeprefix(showing.comments_of(text(name)))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("tiny")])
def test_the_published_families_are_judged_by_the_papers_five_scorers(name: str) -> None:
    recipe = load_recipe(name)
    assert set(recipe.evaluation.scorers) == set(METRICS) == set(recipe.report.published.scorers)
    family, guidance = name.partition("-")[0], recipe.generation.guidance_scale
    assert guidance == {"sd15": 7.5, "sdxl": 5.0}[family]
    recipe.report.published.named(name).check(("base", name), tuple(recipe.evaluation.scorers))
    rows = [model for model in json.loads(FILE.read_text())["prompts"]["hpdv2"] if model.startswith(family)]
    assert set(recipe.report.published.models.values()) <= set(rows)


@pytest.mark.parametrize("name", NAMES)
def test_show_prints_a_recipe_that_loads_to_the_same_settings_and_explains_it(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(showing.recipe_text(name) + "".join(map(showing.as_comment, explanation(recipe))))
    assert load_recipe(str(copy)) == recipe
    shown = copy.read_text()
    for seam in ("labels", "noising", "objective"):
        assert f"# {seam.capitalize()}: {getattr(recipe, seam)['name']}" in shown
    assert f"{recipe.training.steps * recipe.training.batch_size:,} " in " ".join(shown.replace("#", "").split())


@pytest.mark.parametrize(("name", "changes", "expected"), [
    ("sd15-dpo", (), ExampleCost("pairs", 2, 2, 0, 0)),
    ("sd15-sft", (), ExampleCost("images", 1, 0, 0, 0)),
    ("sdxl-mapo", (), ExampleCost("pairs", 2, 0, 0, 0)),
    ("sd15-kto", (), ExampleCost("images", 1, 1, 0, 0)),
    ("sd15-kto", ("training.micro_batch_size=2",), ExampleCost("images", 1, 1, 0, 1)),
    ("tiny-demo", (), ExampleCost("pairs", 2, 2, 10, 0)),
    ("tiny-demo", ("noising.inversion_cfg=5.0",), ExampleCost("pairs", 2, 2, 20, 0)),
    ("tiny-inpo", (), ExampleCost("pairs", 2, 2, 8, 0)),
    ("tiny-smpo-cached", (), ExampleCost("pairs", 2, 0, 0, 0)),
    ("sd15-kto", ("training.cached_inversion_epochs=1", "training.micro_batch_size=2"),
     ExampleCost("images", 1, 0, 0, 1)),
])
def test_the_work_of_an_example(name: str, changes: tuple[str, ...], expected: ExampleCost) -> None:
    """By hand: sides shown; the reference sees each once; N steps and one ReNoise step an image; guidance doubles."""
    assert example_cost(load_recipe(name, changes)) == expected


def test_the_work_of_the_papers_grid_and_of_the_released_ones() -> None:
    """Two images each. Stride ceil(1000 / 9) = 112: t in 1..999 takes ceil(t / 112) steps, and one ReNoise step.

    The mean of the former is (112 * 36 + 9 * 103) / 999. The released grids take K = 6.4 (SDXL) and 3.8 (SD1.5) steps
    of two predictions, InPO's of one (METHODS 4.1).
    """
    assert example_cost(load_recipe("sd15-smpo")).inversion == pytest.approx(2 * ((112 * 36 + 9 * 103) / 999 + 1))
    assert example_cost(load_recipe("sdxl-smpo-released")).inversion == pytest.approx(2 * 12.8, abs=0.1)
    assert example_cost(load_recipe("sd15-smpo-released")).inversion == pytest.approx(2 * 7.6, abs=0.1)
    assert example_cost(load_recipe("sdxl-inpo-released")).inversion == pytest.approx(2 * 6.4, abs=0.05)


def test_stored_visits_take_the_work_of_inversion_and_reference_before_training() -> None:
    recipe = load_recipe("tiny-smpo-cached")
    assert invert_nfe(recipe) == 12
    assert invert_nfe(load_recipe("sd15-smpo-cached")) == pytest.approx(2 + 11.93, abs=5e-3)
    assert "come again after an epoch; `smpo invert` inverts each example that differs once" in explanation(recipe)[-1]


def test_the_explanation_is_in_words() -> None:
    paragraphs = explanation(load_recipe("sdxl-linear", ["reference_weights=some/where"]))
    assert [paragraph.partition(":")[0] for paragraph in paragraphs] == [
        "Labels", "Noising", "Objective", "Start", "Training"
    ]
    assert paragraphs[3] == (
        "Start: the policy from stabilityai/stable-diffusion-xl-base-1.0, the reference from some/where; the reference "
        "follows the policy with a decay of 0.99 a step."
    )
    assert paragraphs[4] == (
        "Training: 2,000 optimizer steps of 128 pairs, 256,000 pairs seen; micro-batches of 1, 128 a step where "
        "one process does all. adafactor, learning rate 1e-05, constant."
    )
    assert "there is no reference" in explanation(load_recipe("sdxl-mapo"))[3]
    assert explanation(load_recipe("tiny-smpo-lora"))[3] == (
        "Start: the policy from package://smpo.tiny/weights/tiny-sd with a LoRA of rank 8 on to_q, to_k, to_v, "
        "to_out.0; the reference is the same copy of the weights without it."
    )


def test_the_list_names_everything_once_in_100_columns() -> None:
    lines = showing.listing().splitlines()
    assert max(map(len, lines)) <= 100
    first = [line.split()[0] for line in lines if line]
    assert [name for name in first if name in NAMES] == sorted(NAMES, key=lambda n: (recipe_path(n).parent.name, n))
    assert [name for name in first if name in shipped_sweeps()] == shipped_sweeps()
    (row,) = [line for line in lines if line.startswith("sd15-smpo ")]
    assert re.split(" {2,}", row) == [
        "sd15-smpo", "SmPO-Diffusion", "smoothed reward / renoise 9 / smpo 2000x10", "22.08"
    ]
    assert not [line for line in lines if line.split()[:1] and line.split()[0] in NAMES and "..." in line]


def test_a_sweep_is_printed_with_its_number_of_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "# Two betas\nname: mine\nrecipe: tiny-dpo\nseeds: [3, 4, 5]\ngrid: {objective.beta: [100, 200]}\n"
    )
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "mine.yaml")])
    assert shown.exit_code == 0 and shown.output.startswith("# Two betas\nname: mine\n")
    told = shown.output.splitlines()[-1]
    assert told == "# 6 runs: 2 rows (grids included) of recipe tiny-dpo, seeds 3, 4, 5; in runs/mine."


@pytest.mark.parametrize("name", shipped_sweeps())
def test_every_shipped_sweep_is_shown_and_its_recipes_load(name: str) -> None:
    assert showing.is_sweep(name) and CliRunner().invoke(app, ["show", name]).exit_code == 0
    assert all(run.recipe() for run in load_sweep(name).runs())


def test_the_docs_table_has_every_recipe_with_the_papers_number() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (\S+) \|$", DOCS.read_text(), flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == NAMES
    assert dict(rows) == {name: showing.recipe_cells(name)[-1] for name in NAMES}
