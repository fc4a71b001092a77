"""Recipes: strict, complete, and one line for every mistake."""

from typing import get_args

import pytest
import yaml

from smpo.core.checks import did_you_mean
from smpo.core.errors import ConfigError
from smpo.pipeline.config import Recipe, dump_recipe, load_recipe, resolve
from smpo.pipeline.reading import read_recipe
from smpo.pipeline.recipe_files import recipe_path, shipped_recipes

MINIMAL = {
    "name": "mine",
    "model": {"name": "sd", "source": "somewhere"},
    "data": {"source": "pairs.jsonl"},
    "labels": {"name": "hard"},
    "noising": {"name": "forward"},
    "objective": {"name": "dpo"},
    "training": {"steps": 1, "batch_size": 1, "optimizer": {"lr": 1e-5}},
}


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_round_trips(name):
    recipe = load_recipe(name)
    assert resolve(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_starts_with_what_it_is_and_the_command_that_runs_it(name):
    first, second, *_ = recipe_path(name).read_text().splitlines()
    assert first.startswith("# ") and second.startswith("#   smpo ")


def test_resolving_fills_in_every_default_of_a_seam():
    assert resolve(MINIMAL).objective == {"name": "dpo", "beta": 2000.0}
    assert resolve(MINIMAL).noising == {"name": "forward", "noise": "shared"}


def test_a_moving_reference_needs_an_objective_or_a_noising_that_has_one():
    moving = {**MINIMAL["training"], "reference_ema_decay": 0.99}
    assert resolve({**MINIMAL, "training": moving}).training.reference_ema_decay == 0.99
    with pytest.raises(ConfigError, match="reference_ema_decay=0.99 moves a reference, and objective 'sft' has none"):
        resolve({**MINIMAL, "training": moving, "objective": {"name": "sft"}})
    inverted = {"name": "ddim", "network": "reference"}
    assert resolve({**MINIMAL, "training": moving, "objective": {"name": "sft"}, "noising": inverted})


def test_visits_are_stored_only_of_a_reference_that_is_needed_inverts_and_stands_still():
    storing = {**MINIMAL["training"], "cached_inversion_epochs": 2}
    assert resolve({**MINIMAL, "training": storing}).training.cached_inversion_epochs == 2
    assert resolve({**MINIMAL, "training": storing, "noising": {"name": "ddim", "network": "reference"}})
    for changes, message in (
        ({"objective": {"name": "sft"}},
         "cached_inversion_epochs=2 stores a reference's errors, and objective 'sft' needs none"),
        ({"noising": {"name": "ddim"}},
         "cached_inversion_epochs=2 needs latents of the reference, got noising.network="
                                        "policy; set noising.network=reference"),
        ({"training": {**storing, "reference_ema_decay": 0.9}},
         "cached_inversion_epochs=2 needs a reference that stands still"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve({**MINIMAL, "training": storing, **changes})


def test_overrides_are_read_as_yaml_and_reach_nested_sections():
    recipe = load_recipe(
        "sd15-smpo", ["training.optimizer.lr=1e-5", "training.batch_size=8", "init_weights=some/where"]
    )
    assert recipe.training.optimizer.lr == 1e-5
    assert recipe.training.batch_size == 8
    assert recipe.init_weights == "some/where"


def test_naming_another_member_keeps_only_the_settings_that_both_have():
    recipe = load_recipe("sd15-smpo", ["noising.inversion_steps=4", "noising.name=released"])
    assert recipe.noising["inversion_steps"] == 4
    assert "grid" not in recipe.noising


def test_exponent_without_a_point_is_a_number_in_a_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINIMAL).replace("1.0e-05", "1e-5"))
    assert "1e-5" in path.read_text()
    assert load_recipe(str(path)).training.optimizer.lr == 1e-5


@pytest.mark.parametrize(("override", "message"), [
    ("training.bach_size=8", "training.bach_size: unknown key; known: steps, batch_size, "),
    ("training.optimizer.lrr=1", "training.optimizer.lrr: unknown key; known: name, lr, "),
    ("noising.gird=subdivide", "noising.gird: unknown key; known: name, inversion_steps, grid, "),
    ("noising.grid=foo", "noising: unknown noising.grid 'foo'; known: subdivide, fixed_stride."),
    ("training.optimizer.lr=abc", "training.optimizer.lr: must be a number, got 'abc'"),
    ("training.steps=0", "training.steps: must be > 0, got 0"),
    ("training.micro_batch_size=3", "training: batch_size must be a multiple of micro_batch_size 3, got 1024"),
    ("noising={name: chained, chain_length: 8}",
     "training.micro_batch_size must be a multiple of noising.chain_length=8, for it "
                                          "holds whole chains; got 4"),
    ("objective.beta=-1", "objective: beta must be a finite number > 0, got -1.0"),
    ("objective.name=smp", "unknown objective 'smp'; known: smpo, dpo, sft"),
    ("objective.name=dpo", "objective 'dpo' takes hard labels, got labels.name=smoothed; set labels.name=hard or "
                           "objective.name=smpo"),
    ("cache.flips=false", "training.flips=independent needs cache.flips=true, got false"),
    ("data.source=null", "give either data.source (existing pairs) or a sampling section (pairs to generate)"),
    ("scorer=null", "labels 'smoothed' need scores: add a scorer section"),
    ("scoring.also={pickscore: {name: clip}}", "scoring.also.pickscore: the table of the recipe's scorer has this "
                                               "name; choose another"),
    ("scoring.also={mine: {source: x}}", "scoring.also.mine.name: required, but missing; known: pickscore"),
    ("scoring.wokers=2", "scoring.wokers: unknown key; known: batch_size, workers, block_size, also."),
    ("training.steps=[1", "override 'training.steps=[1': not valid YAML (while parsing a flow sequence"),
    ("steps", "override must look like section.key=value, got 'steps'"),
    ("name.first=x", "name.first: 'name' is a value, not a section"),
])
def test_a_wrong_override_is_one_line_that_says_what_and_what_to_do(override, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe("sd15-smpo", [override])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def write(folder, **files):
    """`folder` with one file name.yaml of each keyword's YAML text."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_recipe_is_its_base_with_its_own_keys_laid_over(tmp_path):
    """Sections merge key by key, members with a name are replaced whole, null takes a key out, order is the base's."""
    write(
        tmp_path, under=yaml.safe_dump({**MINIMAL, "init_weights": "some/where"}),
        middle="base: under.yaml\nobjective: {name: smpo, gamma: 5}\nlabels: {name: smoothed, winner_by: human}\n"
               "scorer: {name: clip}\ninit_weights: null\n",
        top="base: middle.yaml\nname: top\ntraining: {steps: 7, optimizer: {warmup_steps: 2}}\n"
            "labels: {name: smoothed}\n",
    )
    recipe = load_recipe(str(tmp_path / "top.yaml"))
    assert recipe.objective == {"name": "smpo", "beta": 2000.0, "gamma": 5.0}
    assert recipe.labels["winner_by"] == "reward" and recipe.init_weights is None
    assert (recipe.training.steps, recipe.training.batch_size) == (7, 1)
    assert (recipe.training.optimizer.lr, recipe.training.optimizer.warmup_steps) == (1e-5, 2)
    assert load_recipe(str(tmp_path / "top.yaml"), ["training.steps=8"]).training.steps == 8
    assert list(read_recipe(str(tmp_path / "top.yaml")))[:3] == list(yaml.safe_load(yaml.safe_dump(MINIMAL)))[:3]
    assert "base" not in yaml.safe_load(dump_recipe(recipe))


def nullable(section, above=""):
    """(dotted name, default) of every field that may be null, but for those of members with a name."""
    for key, field in section.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        if type(None) in kinds:
            yield above + key, field.default
        for kind in kinds:
            if hasattr(kind, "model_fields"):
                yield from nullable(kind, f"{above}{key}.")


def test_a_key_that_null_takes_out_is_null():
    """So that `null` in a recipe on a base means what it means everywhere else."""
    fields = dict(nullable(Recipe))
    assert {"scorer", "training.ema_decay", "report.published", "generation.limit"} < set(fields)
    assert {name: default for name, default in fields.items() if default is not None} == {}


def test_a_shipped_recipe_can_be_the_base_from_anywhere(tmp_path):
    write(tmp_path, mine="base: sd15-smpo\nname: mine\nobjective: {name: smpo, beta: 1000, gamma: 10}\n")
    mine, theirs = load_recipe(str(tmp_path / "mine.yaml")), load_recipe("sd15-smpo")
    assert mine.objective["beta"] == 1000
    assert mine.training == theirs.training and mine.evaluation == theirs.evaluation


@pytest.mark.parametrize(("text", "message"), [
    ("base: sd15-smp", "{file}: base: no recipe file and no shipped recipe 'sd15-smp'; shipped: "),
    ("base: [a]", "{file}: base must be the name or file of a recipe, got ['a']"),
    ("base: wrong.yaml", "wrong.yaml: base: wrong -> wrong goes in a circle; let one of them stand without a base"),
    ("base: round.yaml", "wrong.yaml: base: wrong -> round -> wrong goes in a circle; "),
    ("base: list.yaml", "list.yaml: must be a mapping of keys, got a list"),
    ("base: sd15-smpo\ntraining: {stepz: 1}", "training.stepz: unknown key; known: steps, "),
])
def test_a_wrong_base_is_one_line(tmp_path, text, message):
    write(tmp_path, wrong=text, round="base: wrong.yaml", list="- a")
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(tmp_path / "wrong.yaml"))
    assert str(caught.value).startswith(message.format(file=tmp_path / "wrong.yaml"))
    assert "\n" not in str(caught.value)


def test_nearest_name_is_offered_for_unknown_keys_and_recipes():
    with pytest.raises(ConfigError, match=r"Did you mean 'batch_size'\?"):
        load_recipe("sd15-smpo", ["training.bach_size=8"])
    with pytest.raises(ConfigError, match=r"Did you mean 'sd15-smpo'\?"):
        load_recipe("sd15-smp")
    assert did_you_mean("xyz", ["beta"]) == ""


def test_a_missing_section_and_bad_yaml_are_named(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in MINIMAL.items() if key != "training"}))
    with pytest.raises(ConfigError, match="training: required, but missing"):
        load_recipe(str(path))
    path.write_text("a: [1,")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_recipe(str(path))
    path.write_text("- a")
    with pytest.raises(ConfigError, match="must be a mapping of keys, got a list"):
        load_recipe(str(path))
