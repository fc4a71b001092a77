"""Other tools' names for our keys: every key exists, every name is found, and the docs list the table."""

import re
from pathlib import Path

import pytest

from smpo.core.flag_names import FOREIGN_FLAGS, flag_hint, recipe_key_for
from smpo.pipeline.config import _all_keys
from smpo.pipeline.hints import key_hint

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
KEYS = set(_all_keys())
OPEN = ("model.", "scorer.")  # the settings of their members are no keys of every recipe


def test_every_key_that_is_named_exists() -> None:
    members = {"model.name", "model.source", "model.revision", "scorer.name"}
    assert {key.name for key in FOREIGN_FLAGS.values()} <= KEYS | members


def test_every_name_is_in_one_spelling() -> None:
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in FOREIGN_FLAGS)


@pytest.mark.parametrize("name", ["learning_rate", "--learning_rate", "--learning-rate", "training.learning_rate"])
def test_a_name_is_found_in_every_spelling(name: str) -> None:
    assert recipe_key_for(name).name == "training.optimizer.lr"
    assert flag_hint(name).startswith(" Did you mean 'training.optimizer.lr'?")


def test_our_own_names_and_unknown_ones_get_no_hint() -> None:
    assert flag_hint("training.lora.rank") == "" and flag_hint("nonsense") == "" and recipe_key_for("nonsense") is None


def test_the_nearest_key_is_looked_for_in_every_section() -> None:
    others = ["training.steps", "training.optimizer.lr", "cache.crops", "objective.gamma", "scoring.workers"]
    assert key_hint("training.gamma", ["steps"], others) == " Did you mean 'objective.gamma'?"
    assert key_hint("training.stepps", ["steps"], others) == " Did you mean 'steps'?"
    assert key_hint("scorings.worker", ["name"], others) == " Did you mean 'scoring.workers'?"
    assert key_hint("zzz", ["steps"], others) == ""


def test_the_docs_list_the_table() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| `([\w.]+)` \| ?(.*?) ?\|$", PAGE.read_text(), flags=re.MULTILINE)
    assert rows == [(name, key.name, key.note) for name, key in FOREIGN_FLAGS.items()]
