"""Keys of smpo 0.1: each is refused in one line that names its successor, wherever it stands and whatever it says."""

from pathlib import Path

import pytest
import yaml

from smpo.core.errors import ConfigError
from smpo.pipeline.config import Recipe, load_recipe, resolve
from smpo.pipeline.hints import dotted_keys
from smpo.pipeline.recipe_files import shipped_recipes
from smpo.pipeline.renamed import RENAMED_KEYS, RENAMED_RECIPES
from smpo.sweep.plan import load_sweep

KEYS = list(RENAMED_KEYS.items())


def nested(path: str, value: object) -> dict:
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}


def refusal(call, *arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_new_names_exist_and_old_ones_do_not() -> None:
    known = {*dotted_keys(Recipe), "noising.chain_length"}
    assert set(RENAMED_KEYS.values()) <= known and not set(RENAMED_KEYS) & known
    assert set(RENAMED_RECIPES.values()) <= set(shipped_recipes())
    assert not set(RENAMED_RECIPES) & set(shipped_recipes())


@pytest.mark.parametrize("value", [None, 2, "some/where"])
@pytest.mark.parametrize(("old", "new"), KEYS)
def test_in_a_recipe_on_a_base_also_as_null(tmp_path: Path, old: str, new: str, value: object) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"base": "sd15-smpo", "name": "mine", **nested(old, value)}))
    assert refusal(load_recipe, str(file)) == f"{file}: {old}: its name is {new} since smpo 0.2; rename it"


@pytest.mark.parametrize("value", ["null", "2"])
@pytest.mark.parametrize(("old", "new"), KEYS)
def test_as_an_override(old: str, new: str, value: str) -> None:
    line = f"{old}: its name is {new} since smpo 0.2; rename it"
    assert refusal(load_recipe, "sd15-smpo", [f"{old}={value}"]) == line
    section, _, key = old.rpartition(".")
    if section:
        assert refusal(load_recipe, "sd15-smpo", [f"{section}={{{key}: {value}}}"]) == line


@pytest.mark.parametrize(("old", "new"), KEYS)
def test_in_a_mapping_and_in_a_sweep(tmp_path: Path, old: str, new: str) -> None:
    line = f"{old}: its name is {new} since smpo 0.2; rename it"
    assert refusal(resolve, nested(old, None)) == line
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nrecipe: tiny-dpo\nseeds: [0]\nrows: {{a: {{set: {{{old}: null}}}}}}\n")
    assert line in refusal(lambda: [run.recipe() for run in load_sweep(str(file), tmp_path, []).runs()])


def test_a_recipe_that_was_renamed_is_named() -> None:
    assert refusal(load_recipe, "sd15-smpo-stored") == (
        "recipe 'sd15-smpo-stored': its name is sd15-smpo-cached since smpo 0.2"
    )
