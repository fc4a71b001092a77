"""The README and the docs cannot drift from the code."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from smpo.cli.app import VERBS
from smpo.pipeline.config import load_recipe
from smpo.sweep.plan import load_sweep

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EQUATIONS = (ROOT / "docs" / "equations.md").read_text()


@pytest.mark.parametrize("verb", [*VERBS, "audit", "run", "check", "sweep", "cost", "export", "show", "demo"])
def test_readme_explains_every_verb(verb):
    assert f"| `smpo {verb}` |" in README


def test_every_smpo_command_in_the_readme_has_a_recipe_and_overrides_that_resolve():
    commands = re.findall(r"^(?:accelerate launch .* -m )?smpo (\w+) ([\w.-]+) ?([^\n]*)$", README, flags=re.MULTILINE)
    assert len(commands) >= 4
    for verb, recipe, rest in commands:
        overrides = [word for word in rest.split() if "=" in word]
        if verb == "sweep":
            assert load_sweep(recipe, changes=overrides).runs()
        else:
            assert verb in (*VERBS, "audit", "run")
            load_recipe(recipe, overrides)


def test_every_folder_of_the_readmes_tree_exists():
    tree = README[README.index("```\nsrc/smpo/") :]
    folders = re.findall(r"^  (\w+)/ ", tree, flags=re.MULTILINE)
    rooms = {path.parent.name for path in (ROOT / "src" / "smpo").glob("*/__init__.py")}
    assert set(folders) == rooms | {"recipes"}


def test_every_make_target_that_the_readme_names_exists():
    targets = re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(r"\bmake ([\w-]+)", README):
        assert target in targets


def test_every_linked_file_and_picture_exists():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(maths\.\w+\.\w+)", EQUATIONS))))
def test_every_function_on_the_equations_page_exists(name):
    module, attribute = f"smpo.{name}".rsplit(".", 1)
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", EQUATIONS))))
def test_every_test_on_the_equations_page_exists(path):
    assert (ROOT / path).exists()


def test_the_tables_of_the_results_are_those_of_the_committed_rows():
    spec = importlib.util.spec_from_file_location("study_page", ROOT / "benchmarks" / "study_page.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    blocks = [(match["name"], match[0]) for match in page.BLOCK.finditer((ROOT / "docs" / "results.md").read_text())]
    assert {name for name, _ in blocks} == {path.stem for path in page.ROWS.glob("tiny-*.jsonl")} and blocks
    for name, text in blocks:
        rows = page.rows_of(name)
        assert page.table(rows, page.ours_of(name)) in text, f"run python benchmarks/study_page.py: {name}"
