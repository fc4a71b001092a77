"""The README and the docs cannot drift from the code."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from smpo.cli.app import VERBS
from smpo.pipeline.config import load_recipe
from smpo.sweep.plan import load_sweep
from tests.test_layers import ROWS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EQUATIONS = (ROOT / "docs" / "equations.md").read_text()
COMMANDS = (ROOT / "docs" / "command-line.md").read_text()
DESIGN = (ROOT / "docs" / "design.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = [
    *PAGES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
OWN = ("RECIPE", "mine.yaml", "rehearsal.yaml", "recipe.yaml", "my-recipe.yaml", "my.yaml")  # readers write them


@pytest.mark.parametrize("verb", [*VERBS, "audit", "run", "check", "sweep", "cost", "export", "show", "demo"])
def test_the_table_of_commands_has_every_verb(verb):
    assert f"\n| `smpo {verb}` |" in COMMANDS


def commands_of(text: str) -> list[tuple[str, str, str]]:
    """(verb, recipe, rest) of every `smpo VERB RECIPE ...` in a page's shell blocks, whatever launches it."""
    lines = [line.split(" #")[0] for kind, block in BLOCK.findall(text) if kind == "sh"
             for line in block.replace("\\\n", " ").splitlines()]
    matches = [re.match(r"(?:(?:accelerate|torchrun) .* -m )?smpo (\w+) ([\w./-]+) ?(.*)$", line) for line in lines]
    return [match.groups() for match in matches if match and match[2] not in OWN]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_smpo_command_of_a_page_has_a_recipe_and_overrides_that_resolve(path):
    for verb, recipe, rest in commands_of(path.read_text()):
        overrides = [word.strip("'") for word in shlex.split(rest) if "=" in word and not word.startswith("-")]
        if verb == "sweep":
            assert load_sweep(recipe, changes=overrides).runs()
        elif verb in (*VERBS, "audit", "run", "check", "cost") and not recipe.startswith("runs/"):
            load_recipe(recipe, overrides)


def test_commands_of_pages_are_found():
    """A pattern that matches nothing would pass everything above."""
    assert sum(len(commands_of(path.read_text())) for path in PAGES) > 30


def test_the_design_page_has_every_room():
    table = DESIGN[DESIGN.index("## The rooms") :]
    rooms = {path.parent.name for path in (ROOT / "src" / "smpo").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == rooms


def test_the_pictures_of_the_design_page_are_those_of_the_code():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "tools" / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    for name, text in pictures.pictures().items():
        assert (ROOT / "docs" / "images" / name).read_text() == text, "run python docs/tools/pictures.py"
    every = {room for floor in pictures.floors(ROWS) for room in floor}
    assert every == {path.parent.name for path in (ROOT / "src" / "smpo").glob("*/__init__.py")}


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_lines_of_prose_have_at_most_100_columns(path):
    """Tables, code, pictures and lines of one long link excepted."""
    text = BLOCK.sub("", path.read_text())
    long = [line for line in text.splitlines() if len(line) > 100 and not re.match(r" *(\||<|!\[|\S+$)", line)]
    assert long == []


def test_the_readme_is_a_screen_and_a_half():
    assert len(README.splitlines()) <= 90


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


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_the_python_of_a_page_imports_from_smpo_exists(path):
    """How-to pages show modules that do not exist yet; test_how_to.py runs them."""
    if path.parent.name == "how-to":
        return
    blocks = [block for kind, block in BLOCK.findall(path.read_text()) if kind == "python"]
    for module, names in re.findall(r"^from (smpo[\w.]*) import ([\w, ]+)", "\n".join(blocks), flags=re.MULTILINE):
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"{module}.{name}"


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
