"""The documentation: pages made from code are whole, links lead somewhere, recipes of tutorials resolve."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from smpo.cost.estimate import counts_of, estimate
from smpo.pipeline.config import Recipe, dump_recipe, load_recipe
from smpo.pipeline.recipe_files import shipped_recipes
from smpo.sweep.plan import load_sweep

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
OWN_PAIRS = (DOCS / "tutorials" / "own-pairs.md").read_text()
FREE_BELOW = ("scoring.also.", "evaluation.scorers.", "generation.models.", "report.published.")
NO_KEYS = ("report.html", "report.md", "model.safetensors", "labels.parquet")  # files
MODULES = tuple(  # "labels.votes": a module of smpo below a section's name
    ".".join(path.relative_to(ROOT / "src" / "smpo").with_suffix("").parts) + "."
    for path in (ROOT / "src" / "smpo").rglob("*.py") if path.stem != "__init__"
)
FENCE = re.compile(r"^```.*?^```[^\n]*$", re.MULTILINE | re.DOTALL)

PYTHON = re.compile(r"^```python\n.*?^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "tools" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_command_and_option_is_explained(reference):
    page = reference.commands_page()
    for name, command in reference.commands().items():
        assert command.help and f"\n## smpo {name}\n" in page
        for parameter in command.params:
            assert parameter.help, f"smpo {name}: {parameter.name} has no help"


def test_every_recipe_key_is_explained(reference):
    keys = [*reference.sections().values()]
    for registry in (*reference.SEAMS.values(), reference.SCORERS):
        keys += reference.members(registry).values()
    bare = [key.name for some in keys for key in some if not key.description]
    assert not bare, f"{bare}: describe them, by Field(description=...) or under Attributes: in the docstring"


@pytest.mark.parametrize("name", ["tiny-demo", "sdxl-smpo-lora", "sd15-smpo-ensemble"])
def test_every_key_of_a_resolved_recipe_is_in_the_reference(reference, name):
    def leaves(node, prefix):
        for key, value in node.items():
            path = f"{prefix}{key}"
            yield from leaves(value, f"{path}.") if isinstance(value, dict) and value else [path]

    known = reference.all_keys()
    resolved = yaml.safe_load(dump_recipe(load_recipe(name)))
    assert [key for key in leaves(resolved, "") if key not in known and not key.startswith(FREE_BELOW)] == []


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_every_recipe_key_that_a_page_names_exists(reference, path):
    known = reference.all_keys()
    sections = "|".join(Recipe.model_fields)
    named = re.findall(rf"(?<![\w./])(?:{sections})(?:\.[a-z_]+)+(?=[=`:, ])", PYTHON.sub("", path.read_text()))
    others = FREE_BELOW + NO_KEYS + MODULES
    assert [key for key in named if key not in known and not f"{key}.".startswith(others)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_every_link_of_a_page_leads_somewhere(path):
    made = {DOCS / "reference" / "cli.md", DOCS / "reference" / "recipe-keys.md"}
    for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)", FENCE.sub("", path.read_text())):
        target = (path.parent / link).resolve()
        assert target.exists() or target in made, link


def test_every_page_is_in_the_navigation_and_on_the_start_page():
    navigation = (ROOT / "mkdocs.yml").read_text()
    start = (DOCS / "index.md").read_text()
    for path in PAGES:
        name = path.relative_to(DOCS).as_posix()
        assert f": {name}\n" in navigation, name
        assert name == "index.md" or f"({name})" in start, name


# --- tutorials ---

def recipes_of(page: str) -> list[str]:
    return [block for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL) if block.startswith("base:")]


def commands_of(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]


@pytest.fixture
def in_tutorial(tmp_path, monkeypatch):
    """A folder with the tutorial's two recipes."""
    for name, text in zip(("mine.yaml", "rehearsal.yaml"), recipes_of(OWN_PAIRS), strict=True):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda path: path.stem)
def test_every_smpo_command_of_a_tutorial_resolves(reference, in_tutorial, page):
    commands = [command.split() for command in commands_of(page.read_text()) if command.startswith("smpo ")]
    assert len(commands) >= 4 or page.stem == "notebooks"
    for _, verb, *rest in commands:
        assert verb in reference.commands() or verb == "--version"
        for flag in (word for word in rest if word.startswith("--")):
            assert flag in [name for one in reference.commands()[verb].params for name in one.opts]
        if rest and verb == "sweep":
            load_sweep(rest[0], changes=[word for word in rest if "=" in word])
        elif rest and verb not in ("show", "demo"):
            load_recipe(rest[0], [word for word in rest if "=" in word])


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "base", "peak_gib"), [
    ([], "sd15-dpo", 7), (["objective.beta=5000", "training.micro_batch_size=1"], "sdxl-dpo", 16),
])
def test_the_tutorials_recipe_needs_the_memory_that_it_says(in_tutorial, changes, base, peak_gib):
    """As edited for SDXL: another base, beta and micro-batch."""
    path = Path("mine.yaml")
    path.write_text(path.read_text().replace("base: sd15-dpo", f"base: {base}"))
    recipe = load_recipe("mine.yaml", changes)
    peak = estimate(recipe, counts_of(recipe, (800, 800))).memory.peak / 2**30
    assert peak == pytest.approx(peak_gib, abs=0.5)
    assert f"about {peak_gib}" in OWN_PAIRS.replace("\n", " ").replace("GiB", "")


def test_tutorials_name_bases_that_ship():
    for text in recipes_of(OWN_PAIRS):
        assert yaml.safe_load(text)["base"] in shipped_recipes()


# --- the changelog ---

def test_renamed_keys_have_their_new_names(reference):
    page = (ROOT / "CHANGELOG.md").read_text()
    table = page[page.index("### Renamed") : page.index("Modules moved")]
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", table, flags=re.MULTILINE)
    assert len(rows) >= 4
    for old, new in rows:
        assert old not in reference.all_keys() and new in reference.all_keys()
