"""Sweep files and their runs."""

from pathlib import Path

import pytest

from smpo.core.errors import ConfigError
from smpo.pipeline.recipe_files import shipped_sweeps
from smpo.sweep.plan import filled, load_sweep, slug

FILE = """
name: demo
recipe: tiny-study
seeds: [3, 4]
each_seed: [[python, -m, smpo.tiny.demo, "{seed_folder}", --seed, "{seed}"]]
set: {sampling.seed: "{seed+1}", training.steps: 7}
rows:
  start: {set: {objective.name: sft, labels.name: hard, noising.name: forward}}
  from start: {set: {init_weights: "{run:start}/train/model"}, own: [pairs]}
grid: {training.optimizer.lr: [1.0e-4, 2.0e-4]}
"""


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> str:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return str(path)

    return written


def test_every_row_takes_every_point_for_every_seed(write, tmp_path: Path) -> None:
    runs = load_sweep(write(FILE), tmp_path).runs()
    assert [(run.seed, run.row) for run in runs] == [
        (seed, f"{row}, lr={lr}") for seed in (3, 4) for row in ("start", "from start") for lr in ("0.0001", "0.0002")]
    assert len({run.folder for run in runs}) == 8


def test_a_row_may_have_a_grid_of_its_own(write, tmp_path: Path) -> None:
    text = FILE.replace("own: [pairs]", "grid: {training.steps: [5]}").replace("{run:start}", "{seed_folder}")
    assert [run.row for run in load_sweep(write(text), tmp_path).runs()[:3]] == [
        "start, lr=0.0001", "start, lr=0.0002", "from start, steps=5"]


def test_runs_share_what_the_sweep_shares_and_own_the_rest(write, tmp_path: Path) -> None:
    start, following = load_sweep(write(FILE.split("grid")[0]), tmp_path).runs()[:2]
    shared = tmp_path / "seed-3"
    recipe, other = start.recipe(), following.recipe()
    assert (recipe.folder("sample"), recipe.folder("train")) == (shared / "sample", shared / "start" / "train")
    assert (recipe.folder("pairs"), other.folder("pairs")) == (shared / "pairs", shared / "from-start" / "pairs")
    assert recipe.store == other.store == shared / "store"
    assert (recipe.name, recipe.seed, recipe.sampling.seed, recipe.training.steps) == ("start", 3, 4, 7)


def test_cached_inversions_belong_to_a_run_unless_shared_and_only_then_change_its_plan(write, tmp_path: Path) -> None:
    """Plans of runs from before 0.2.0 must not change, or finished runs would run again."""
    alone = load_sweep(write(FILE), tmp_path).runs()[0]
    assert not [one for one in alone.overrides if "invert" in one]
    assert alone.recipe().folder("invert") == alone.folder / "invert"
    text = FILE.replace("seeds:", "share: [sample, pairs, score, cache, invert]\nseeds:")
    shared = load_sweep(write(text), tmp_path).runs()[0]
    assert shared.recipe().folder("invert") == tmp_path / "seed-3" / "invert"
    assert {*shared.overrides} - {*alone.overrides} == {f'paths.invert="{tmp_path}/seed-3/invert"'}


def test_a_row_may_start_from_another_and_waits_for_it(write, tmp_path: Path) -> None:
    runs = load_sweep(write(FILE), tmp_path).runs()
    start, following = runs[1], runs[3]
    assert start.after == () and following.after == (start.folder,) and following.row == "from start, lr=0.0002"
    assert following.recipe().init_weights == str(start.folder / "train" / "model")


def test_a_row_may_start_from_one_that_lacks_its_grid(write, tmp_path: Path) -> None:
    text = FILE.replace("own: [pairs]", "grid: {training.steps: [5, 6]}").split("\ngrid")[0]
    start, *following = load_sweep(write(text), tmp_path).runs()[:3]
    assert [run.after for run in following] == [(start.folder,)] * 2


@pytest.mark.parametrize("start", ["grid: {training.steps: [5]}", "seeds: [4]"])
def test_a_row_cannot_start_from_a_run_that_is_not_planned(write, tmp_path: Path, start: str) -> None:
    """The other row has a grid of its own, or not this seed."""
    text = FILE.replace("\n  start: {set:", f"\n  start: {{{start}, set:").split("\ngrid")[0]
    with pytest.raises(ConfigError, match="unknown row of this seed and point in {run:...} 'start'"):
        load_sweep(write(text), tmp_path).runs()


def test_a_sweep_may_read_what_the_same_row_made_in_another_folder(write, tmp_path: Path) -> None:
    text = FILE.replace("training.steps: 7", 'paths.train: "runs/first/seed-{seed}/{row}/train"')
    recipe = load_sweep(write(text), tmp_path).runs()[2].recipe()
    assert recipe.folder("train") == Path("runs/first/seed-3/from-start-lr-0.0001/train")


def test_the_folder_decides_where_runs_lie(write, tmp_path: Path) -> None:
    assert load_sweep(write(FILE)).folder == Path("runs/demo")
    assert load_sweep(write("folder: runs/other\n" + FILE)).folder == Path("runs/other")
    assert load_sweep(write("folder: runs/other\n" + FILE), tmp_path).folder == tmp_path


def test_changes_from_the_command_line_reach_every_run(write, tmp_path: Path) -> None:
    runs = load_sweep(write(FILE), tmp_path, ["training.steps=9"]).runs()
    assert {run.recipe().training.steps for run in runs} == {9}


def test_a_row_gives_its_place_on_the_curve(write, tmp_path: Path) -> None:
    text = FILE + "report: {x: training.optimizer.lr}\n"
    assert load_sweep(write(text), tmp_path).runs()[1].curve == ("start", 2e-4)
    text = FILE.replace("rows:", "report: {x: noise}\nrows:\n  noisy: {x: 0.2, series: votes}").split("grid")[0]
    assert load_sweep(write(text), tmp_path).runs()[0].curve == ("votes", 0.2)


def test_names_are_filled_in_wherever_texts_are() -> None:
    names = {"seed": 5, "seed_folder": Path("a/seed-5"), "folder": Path("a/seed-5/row"),
             "run": {"other row": "a/seed-5/other-row"}}
    value = {"seed": "{seed}", "later": "{seed+10}", "paths": ["{folder}/x", {"deep": "{run:other row}/y"}], "n": 3}
    assert filled(value, names) == (
        {"seed": 5, "later": 15, "paths": ["a/seed-5/row/x", {"deep": "a/seed-5/other-row/y"}], "n": 3}, {"other row"})
    assert filled("seed {seed}", names)[0] == "seed 5"


@pytest.mark.parametrize(("name", "expected"), [
    ("+ Inversion", "Inversion"), ("dpo, lr=1e-4", "dpo-lr-1e-4"), ("a/b", "a-b"),
])
def test_rows_become_folder_names(name: str, expected: str) -> None:
    assert slug(name) == expected


@pytest.mark.parametrize(("change", "message"), [
    (("seeds:", "sseds:"), "sseds: unknown key|sseds.*Extra inputs"),
    (("own: [pairs]", "own: [pears]"), "unknown artefact to share or own 'pears'; known: .*Did you mean 'pairs'"),
    (("from start:", "start-:"), "rows start, start- would share the folder start; rename them"),
    (("rows:", "report: {ours: start}\nrows:"), "report: ours is named wins_of since smpo 0.2; rename it"),
    (("rows:", "report: {wins_of: stat}\nrows:"), "unknown row of report.wins_of 'stat'; .* Did you mean 'start'"),
    (("{run:start}", "{run:stat}"), "unknown row of this seed and point in {run:...} 'stat'; known: start, from start"),
])
def test_mistakes_are_one_line_errors(write, tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sweep(write(FILE.replace(*change)), tmp_path).runs()


def test_an_unknown_sweep_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="no sweep file and no shipped sweep 'tiny-tabel2'; shipped: .*"):
        load_sweep("tiny-tabel2")


@pytest.mark.parametrize("name", shipped_sweeps())
def test_every_shipped_sweep_resolves_to_recipes(name: str, tmp_path: Path) -> None:
    runs = load_sweep(name, tmp_path).runs()
    assert runs
    for run in runs:
        assert run.recipe().seed == run.seed


def test_varied_names_fill_texts_and_name_the_rows(write, tmp_path: Path) -> None:
    rows = 'rows:\n  noisy: {commands: [[echo, "{noise}"]]}\n  clean: {vary: {}}\n'
    text = FILE.split("rows:")[0] + "vary: {noise: [0.1, 0.2]}\nreport: {x: noise}\n" + rows
    runs = load_sweep(write(text), tmp_path).runs()[:3]
    assert [(run.row, run.commands, run.curve) for run in runs] == [
        ("noisy, noise=0.1", (("echo", "0.1"),), ("noisy", 0.1)),
        ("noisy, noise=0.2", (("echo", "0.2"),), ("noisy", 0.2)),
        ("clean", (), None)]
    with pytest.raises(ConfigError, match="unknown placeholder 'nois'; known: .*Did you mean 'noise'"):
        load_sweep(write(text.replace('"{noise}"', '"{nois}"')), tmp_path).runs()
