"""The shape of the program: who may import whom, and how long things may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import smpo

ROOT = Path(smpo.__file__).parent

# docs/design.md, Layers: a module may import its own package and the rows above it. Longer names win:
# `models.package_data` only turns a source into a path and `data.images` only bytes into pixels: rewards need both, so
# they stand above the seams to the outside; `data.image_text` sets a file's texts aside for it. Preparation samples
# pairs with `sampling`, which knows nothing of it. The demo of the command line imports the tiny world.
ROWS = (
    ("", "core"),
    ("maths", "data.image_text"),
    ("labels", "noising", "objectives", "models.package_data", "data.images"),
    ("models", "rewards", "data"),
    ("prompts",),
    ("sampling",),
    ("preparation",),
    ("training", "evaluation"),
    ("report",),
    ("audit",),
    ("pipeline",),
    ("cost",),
    ("preflight",),
    ("sweep",),
    ("tiny",),
    ("cli",),
    ("__main__",),
)
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}


def name_of(path: Path) -> str:
    """Dotted name below smpo: "maths.schedule"; a package by its own name, smpo itself ""."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}


def imported(tree: ast.AST) -> Iterator[str]:
    """Absolute names of all imported modules; `from a import b` gives a.b where that is one of our modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("smpo.") in MODULES else node.module


def ours(tree: ast.AST) -> set[str]:
    return {name.removeprefix("smpo").lstrip(".") for name in imported(tree) if name.split(".")[0] == "smpo"}


def outside(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imported(tree)} - {"smpo"}


def place(name: str) -> tuple[int, str]:
    """(row, package of the table) of a module, by the longest entry that it lies in."""
    fitting = [
        (len(entry), row, entry) for row, entries in enumerate(ROWS) for entry in entries
        if name == entry or (entry and name.startswith(f"{entry}."))
    ]
    assert fitting, f"smpo.{name} is in no row of the layer table"
    _, row, entry = max(fitting)
    return row, entry


def refused(name: str, imports: set[str]) -> list[str]:
    """What a module called `name` imports against the table."""
    row, package = place(name)
    found = [(other, *place(other)) for other in sorted(imports)]
    return [other for other, its_row, its_package in found if not (
        its_row < row or its_package == package or (its_row == row == 0)
    )]


@pytest.mark.parametrize("name", [name for name in MODULES if name])  # `smpo` itself hands out names of many rooms
def test_module_imports_only_from_rows_above(name: str) -> None:
    assert refused(name, ours(TREES[name])) == []


def test_the_layer_check_itself_refuses_what_it_should() -> None:
    """Up, sideways and across; a package may import itself."""
    assert refused("maths.schedule", {"core.checks", "maths.smoothing"}) == []
    assert refused("maths.schedule", {"models.parts"}) == ["models.parts"]
    assert refused("labels.hard", {"noising.forward", "labels.winner"}) == ["noising.forward"]
    assert refused("rewards.clip", {"models.package_data", "models.parts"}) == ["models.parts"]
    assert refused("core.records", {"maths"}) == ["maths"]
    assert refused("training.step", {"evaluation.scores", "pipeline.config"}) == [
        "evaluation.scores", "pipeline.config"
    ]
    assert ours(ast.parse("from smpo.models import parts, sd")) == {"models.parts", "models.sd"}


@pytest.mark.parametrize("name", [n for n in MODULES if place(n)[1] in {"maths", "objectives", "labels", "noising"}])
def test_maths_and_seams_import_only_torch_from_outside(name: str) -> None:
    assert outside(TREES[name]) <= {"__future__", "torch", "abc", "collections", "dataclasses", "typing", "math"}


def test_only_training_imports_accelerate() -> None:
    users = {name for name, tree in TREES.items() if "accelerate" in outside(tree)}
    assert users and all(place(name)[1] == "training" for name in users)


def test_only_registries_tiny_itself_and_the_command_line_know_the_tiny_world() -> None:
    """No branch of the program knows that a model is tiny: imports nowhere, strings only in registry tables."""
    for name, tree in TREES.items():
        if place(name)[1] in {"tiny", "cli"}:
            continue
        assert not any(other.split(".")[0] == "tiny" for other in ours(tree)), name
        in_tables = {
            id(constant) for call in ast.walk(tree)
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Registry"
            for constant in ast.walk(call)
        }
        strings = [
            node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in in_tables
        ]
        assert not [text for text in strings if "smpo.tiny" in text], name


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("name", [n for n in MODULES if place(n)[1] != "cli" and n != "core.registry"])
def test_no_import_inside_a_function(name: str) -> None:
    inside = [
        node.lineno for function in functions(TREES[name]) for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


@pytest.mark.parametrize("name", MODULES)
def test_functions_and_files_stay_short(name: str) -> None:
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(TREES[name])
            if f.end_lineno - f.lineno + 1 > MAX_FUNCTION_LINES}
    assert long == {}
    assert len(MODULES[name].read_text().splitlines()) <= MAX_FILE_LINES


def test_no_file_is_named_after_nothing() -> None:
    assert not {path.name for path in MODULES.values()} & FORBIDDEN_NAMES


def test_source_is_ascii() -> None:
    """CONTRIBUTING.md, style; templates and recipes are not looked at."""
    assert [name for name, path in MODULES.items() if not path.read_text().isascii()] == []
