"""The shipped sweeps of SD1.5 and SDXL: the paper's rows and numbers, one run for equal rows, nothing trained twice."""

import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smpo.cli.app import app
from smpo.cli.showing import comments_of
from smpo.core.sections import Section
from smpo.pipeline.config import Recipe, load_recipe
from smpo.pipeline.recipe_files import shipped_sweeps, sweep_path
from smpo.pipeline.stages import stages_of
from smpo.report.published import PublishedNumbers
from smpo.sweep.plan import PlannedRun, RowSection, Sweep, SweepFile, SweepReportSection, load_sweep
from smpo.sweep.runner import plan_of

DOCS = Path(__file__).parents[2] / "docs" / "sweeps.md"
SCORERS = {"pickscore": "pickscore", "hpsv2": "hpsv2_1", "imagereward": "imagereward", "aesthetic": "aesthetic",
           "clip": "clip"}
PAPERS = [name for name in shipped_sweeps() if not name.startswith("tiny")]
METHODS = {"sd15": {"base": "base", "SFT": "sft", "DPO": "dpo", "KTO": "kto", "SmPO": "smpo"},
           "sdxl": {"base": "base", "SFT": "sft", "DPO": "dpo", "MaPO": "mapo", "SmPO": "smpo"}}
COMPARISONS = [  # sweep, prompts, what stands beside the medians
    ("sd15-table2", "hpdv2", "WR"), ("sd15-table2-parti", "parti_prompts", "WR"),
    ("sdxl-table2", "hpdv2", "WR"), ("sdxl-table2-parti", "parti_prompts", "WR"),
    ("sd15-table9", "pickapic_v2_test", "mean"), ("sdxl-table8", "pickapic_v2_test", "mean"),
]
SMPO = "22.08 29.31 0.8854 5.831 37.19"
PRINTED = {  # the paper's Tables 3-7: medians on HPDv2's prompts, PickScore HPSv2.1 ImageReward aesthetic CLIP
    "sd15-table3": {"DPO": "21.29 25.11 0.1947 5.530 35.58", "+ Inversion": "21.72 28.71 0.7608 5.748 36.41",
                    "+ ReNoise": "21.87 29.01 0.7778 5.786 36.73", "SmPO": SMPO},
    "sd15-table4": {"2 steps": "22.06 29.22 0.8738 5.828 37.01", "4 steps": "22.06 29.23 0.8764 5.822 36.92",
                    "SmPO": SMPO, "19 steps": "22.11 29.50 0.8964 5.844 37.13"},
    "sd15-table5": {"gamma 2": "21.71 28.50 0.7746 5.712 36.41", "gamma 5": "21.94 28.57 0.7716 5.812 36.79",
                    "gamma 20": "21.96 29.27 0.8542 5.798 36.93", "SmPO": SMPO,
                    "beta 1000": "21.98 28.69 0.8313 5.823 36.97", "beta 3000": "21.95 29.13 0.8504 5.806 37.06",
                    "beta 5000": "21.90 29.12 0.8312 5.795 36.86"},
    "sd15-table6": {"guidance minus 7.5": "21.82 29.06 0.7772 5.766 36.51",
                    "guidance minus 5": "21.89 29.12 0.8047 5.776 36.77",
                    "guidance minus 1": "21.79 29.27 0.8310 5.753 36.62",
                    "guidance 0": "21.78 29.22 0.8311 5.734 36.51", "SmPO": SMPO,
                    "guidance 5": "21.83 29.12 0.7972 5.741 36.44", "guidance 7.5": "21.81 29.01 0.7931 5.752 36.38"},
    "sd15-table7": {"SmPO": SMPO, "HPSv2.1 labels": "21.87 29.50 0.8891 5.790 36.81",
                    "ImageReward labels": "21.77 28.98 0.8638 5.766 36.71",
                    "aesthetic labels": "22.01 29.26 0.8321 5.958 36.16",
                    "CLIP labels": "21.78 28.77 0.8428 5.759 37.08"},
}
HOURS = {  # A800-hours of Tables 1, 4 and 6
    "sd15-table1": {"DPO": "204.8", "KTO": "1056", "SmPO": "41.3"},
    "sdxl-table1": {"DPO": "976", "MaPO": "834.4", "SmPO": "150.8"},
    "sd15-table4": {"2 steps": "27.8", "4 steps": "32.3", "SmPO": "41.3", "19 steps": "67.3"},
    "sd15-table6": {"guidance minus 7.5": "70.3", "guidance minus 5": "70.3", "guidance minus 1": "70.3",
                    "guidance 0": "41.3", "SmPO": "41.3", "guidance 5": "70.3", "guidance 7.5": "70.3"},
}
TRAINING = ("seed", "model", "init_weights", "reference_weights", "data", "scorer", "scoring", "labels", "noising",
            "objective",
            "cache", "training")


@cache
def sweep(name: str) -> Sweep:
    return load_sweep(name)


@cache
def loaded(source: str, overrides: tuple[str, ...]) -> Recipe:
    return load_recipe(source, overrides)


def recipe_of(run: PlannedRun) -> Recipe:
    return loaded(run.source, run.overrides)


def run_of(name: str, row: str) -> PlannedRun:
    return next(run for run in sweep(name).runs() if run.row == row)


def changes(first: Recipe, second: Recipe) -> dict[str, Any]:
    """Dotted key -> their value, for everything that decides a training and differs."""
    flat = []
    for recipe in (first, second):
        flattened: dict[str, Any] = {}
        for section in TRAINING:
            value = recipe.model_dump(mode="json")[section]
            if isinstance(value, dict):
                flattened |= {f"{section}.{key}": one for key, one in value.items()}
            else:
                flattened[section] = value
        flat.append(flattened)
    return {key: flat[1].get(key) for key in {*flat[0], *flat[1]} if flat[0].get(key) != flat[1].get(key)}


def with_numbers(name: str, key: str) -> dict[str, dict[str, str]]:
    """Row -> what the paper prints for it, of rows that have a number in column `key`; the base's among them."""
    file = sweep(name).file
    rows = {"base": file.report.paper} | {row: section.paper for row, section in file.rows.items()}
    return {row: printed for row, printed in rows.items() if key in printed}


@pytest.mark.parametrize(("name", "prompts", "beside"), COMPARISONS)
def test_the_comparisons_have_the_papers_rows_and_numbers(name: str, prompts: str, beside: str) -> None:
    family = name.partition("-")[0]
    models = {row: f"{family}/{model}" for row, model in METHODS[family].items()}
    published = PublishedNumbers(prompts=prompts, models=models, scorers=SCORERS)
    rows = with_numbers(name, "pickscore")
    assert set(rows) == set(models)
    for row, printed in rows.items():
        medians = {scorer: published.text(row, scorer, "median") for scorer in SCORERS}
        second = {f"{s} {beside}": published.text(row, s, "win_rate" if beside == "WR" else "mean") for s in SCORERS}
        assert printed == {key: text for key, text in {**medians, **second}.items() if text}
    assert sweep(name).file.report.beside == {"WR": "wins", "mean": "mean"}[beside]


@pytest.mark.parametrize("name", PRINTED)
def test_the_ablations_have_the_papers_rows_and_numbers(name: str) -> None:
    rows = with_numbers(name, "pickscore")
    assert {row: " ".join(printed[scorer] for scorer in SCORERS) for row, printed in rows.items()} == PRINTED[name]


@pytest.mark.parametrize("name", HOURS)
def test_the_papers_hours_stand_at_their_rows(name: str) -> None:
    assert {row: printed["GPU hours"] for row, printed in with_numbers(name, "GPU hours").items()} == HOURS[name]


@pytest.mark.parametrize("name", PAPERS)
def test_the_report_compares_as_the_paper_does(name: str) -> None:
    file, recipe = sweep(name).file, recipe_of(sweep(name).runs()[0])
    assert (file.report.statistic, file.report.wins_of) == ("median", "SmPO")
    assert set(recipe.evaluation.scorers) == set(SCORERS)
    published = PublishedNumbers(prompts="hpdv2", models={}, scorers=SCORERS)
    assert set(file.report.times_100) == {scorer for scorer in SCORERS if published.scale(scorer) == 100}


@pytest.mark.parametrize("name", shipped_sweeps())
def test_the_header_has_the_command_that_runs_it(name: str) -> None:
    header = comments_of(sweep_path(name).read_text())
    source, *rest = re.search(r"^#   smpo sweep ([^(\n]*)", header, flags=re.MULTILINE)[1].split()
    assert source == name == sweep(name).file.name == sweep_path(name).stem
    assert load_sweep(name, None, [word for word in rest if "=" in word]).runs()


def test_equal_rows_of_one_folder_are_one_run() -> None:
    plans = defaultdict(set)
    for name in shipped_sweeps():
        for run in sweep(name).runs():
            plans[run.folder].add(plan_of(run))
    assert [str(folder) for folder, keys in plans.items() if len(keys) > 1] == []


def test_what_runs_share_is_made_from_the_same_settings() -> None:
    """Pairs from one source, a cache from one VAE and one cropping, a score table from one scorer."""
    made = defaultdict(set)
    for name in PAPERS:
        for run in sweep(name).runs():
            recipe = recipe_of(run)
            made[recipe.folder("pairs")].add(recipe.data.model_dump_json())
            made[recipe.folder("cache")].add(f"{recipe.model} {recipe.cache} {recipe.folder('pairs')}")
            for scorer, settings in recipe.pair_scorers.items() if "score" in stages_of(recipe) else ():
                made[recipe.folder("score") / scorer].add(f"{settings} {recipe.folder('pairs')}")
            made[recipe.folder("label")].add(f"{recipe.labels} {recipe.folder('score')} {recipe.folder('pairs')}")
    assert {str(place): makers for place, makers in made.items() if len(makers) > 1} == {}
    assert {place.name for place in made if place.parent == Path("runs/sd15/seed-0/score")} == {
        "pickscore", "hpsv2", "imagereward", "aesthetic", "clip"}


@pytest.mark.parametrize(("name", "trained"), [
    ("sd15-table2-parti", "sd15-table2"), ("sd15-table9", "sd15-table2"), ("sdxl-table2-parti", "sdxl-table2"),
    ("sdxl-table8", "sdxl-table2"),
])
def test_other_prompts_train_nothing_again(name: str, trained: str) -> None:
    rows = [run.row for run in sweep(name).runs()]
    assert rows == [run.row for run in sweep(trained).runs()]
    for row in rows:
        first, second = recipe_of(run_of(trained, row)), recipe_of(run_of(name, row))
        assert changes(first, second) == {} and first.name == second.name
        for artefact in ("pairs", "score", "cache", "label", "train"):
            assert first.folder(artefact) == second.folder(artefact)
        assert first.generation.prompts != second.generation.prompts
        for artefact in ("generate", "evaluate", "report"):
            assert first.folder(artefact) != second.folder(artefact)


def test_the_modules_come_one_at_a_time_with_and_without_sft() -> None:
    rows = {run.row: recipe_of(run) for run in sweep("sd15-table3").runs()}
    steps = [("DPO, short", "+ Inversion, no SFT"), ("+ Inversion, no SFT", "+ ReNoise, no SFT"),
             ("DPO from SFT", "+ Inversion"), ("+ Inversion", "+ ReNoise")]
    for before, after in steps:
        assert {key.partition(".")[0] for key in changes(rows[before], rows[after])} == {"noising"}
    assert [rows[after].noising["name"] for _, after in steps] == ["ddim", "renoise"] * 2
    assert changes(rows["+ ReNoise"], rows["+ reward's winners"]) == {"labels.winner_by": "reward"}
    assert set(changes(rows["+ reward's winners"], rows["SmPO"])) == {
        "labels.name", "labels.link", "objective.name", "objective.gamma"}
    for without, start in (("DPO, short", "DPO from SFT"), ("+ Inversion, no SFT", "+ Inversion"),
                           ("+ ReNoise, no SFT", "+ ReNoise"), ("SmPO, no SFT", "SmPO")):
        assert changes(rows[without], rows[start]) == {"init_weights": "runs/sd15/seed-0/SFT/train/model"}
    assert changes(rows["SmPO, no SFT"], load_recipe("sd15-smpo")) == {}
    assert changes(rows["DPO"], load_recipe("sd15-dpo")) == {}


@pytest.mark.parametrize(("name", "key"), [
    ("sd15-table4", "noising.inversion_steps"), ("sd15-table5", None), ("sd15-table6", "noising.inversion_cfg"),
])
def test_the_curves_rows_differ_from_smpo_in_their_x_alone(name: str, key: str | None) -> None:
    smpo = run_of(name, "SmPO")
    for run in sweep(name).runs():
        if run.row == "SFT":
            assert run.curve is None
            continue
        recipe, changed = recipe_of(run), changes(recipe_of(smpo), recipe_of(run))
        product = recipe.objective["gamma"] * recipe.objective["beta"]
        assert run.curve == ("SmPO", product if key is None else recipe.noising[key.partition(".")[2]])
        assert run.after == (smpo.folder.parent / "SFT",)
        assert set(changed) <= ({"objective.gamma", "objective.beta"} if key is None else {key})
        assert len(changed) == (run.row != "SmPO")


def test_other_labels_change_the_scorer_alone() -> None:
    smpo = recipe_of(run_of("sd15-table7", "SmPO"))
    for row, column in (("HPSv2.1 labels", "hpsv2"), ("ImageReward labels", "imagereward"),
                        ("aesthetic labels", "aesthetic"), ("CLIP labels", "clip")):
        recipe = recipe_of(run_of("sd15-table7", row))
        assert {key.partition(".")[0] for key in changes(smpo, recipe)} == {"scorer"}
        assert recipe.scorer == smpo.evaluation.scorers[column]


def test_the_docs_name_exactly_the_shipped_sweeps() -> None:
    rows = re.findall(r"^\| `((?:sd15|sdxl|tiny)-[\w-]+)` \|", DOCS.read_text(), flags=re.MULTILINE)
    assert sorted(rows) == shipped_sweeps()


@pytest.mark.parametrize("section", [SweepFile, RowSection, SweepReportSection])
def test_the_docs_explain_every_key(section: type[Section]) -> None:
    for key in section.model_fields:
        assert re.search(rf"^\| [^|]*`{key}`", DOCS.read_text(), flags=re.MULTILINE), key


def test_the_example_of_the_docs_is_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)[1])
    runs = load_sweep(str(path)).runs()
    assert "from SFT, lr=1e-05" in [run.row for run in runs] and all(recipe_of(run) for run in runs)


def test_the_output_in_the_docs_is_what_the_command_prints() -> None:
    verb, name, option, *lines = re.search(
        r"```text\n\$ smpo (sweep) (\S+) (--dry-run)\n(.*?)```", DOCS.read_text(), flags=re.DOTALL).groups()
    assert CliRunner().invoke(app, [verb, name, option]).output == "".join(lines)
