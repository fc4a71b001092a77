"""Whatever becomes a folder or a column is checked when a recipe is loaded."""

from pathlib import Path

import pytest

from smpo.core.errors import ConfigError
from smpo.core.names import check_name, check_names
from smpo.pipeline.config import load_recipe

BAD = ["", "../x", "a/b", "/abs", "a\\b", ".hidden", "dot.", "con", "NUL.txt", "a" * 101, "new\nline", "a b", "\u00e9"]


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_a_folder_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_name(name, what="model")
    assert str(error.value).startswith(f"model {name!r} ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a", "A-b_c.d", "0", "a" * 100, "console", "-"])
def test_good_names(name: str) -> None:
    check_name(name, what="model")


def test_names_that_differ_in_case_alone_are_one_folder_on_some_systems() -> None:
    with pytest.raises(ConfigError, match="model 'ab': the name 'Ab' is taken"):
        check_names(["Ab", "ab"], what="model")


@pytest.mark.parametrize(("override", "message"), [
    ("generation.models={base: x}", "generation.models: model 'base': the name 'base' is taken"),
    ("generation.models={BASE: x}", "generation.models: model 'BASE': the name 'base' is taken"),
    ("generation.models={../x: y}", "generation.models: model '../x' cannot be the name of a folder"),
    ("generation.models={SMPO: x}", "generation.models: model 'SMPO': the name 'smpo' is taken"),
    ("name=base", "name: recipe 'base': the name 'base' is taken"),
    ("name=..", r"name: recipe '\.\.' cannot be the name of a folder"),
    ("evaluation.scorers={prompt: {name: clip}}", "evaluation.scorers: column 'prompt': the name 'prompt' is taken"),
    ("scoring.also={a/b: {name: clip}}", "scoring.also: table 'a/b' cannot be the name of a folder"),
])
def test_a_recipe_with_such_a_name_is_refused(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("tiny-demo", [override])
