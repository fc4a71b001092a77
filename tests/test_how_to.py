"""The how-to pages: the code that they show is put where they say, and run."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import smpo
from smpo.core.registry import Member, Registry

PAGES = Path(__file__).parents[1] / "docs" / "how-to"
FILE = re.compile(r"^```python\n# (src|tests)/([\w/]+)\.py\n(.*?)^```", re.MULTILINE | re.DOTALL)
FUNCTION = re.compile(r"^```python\n# in src/([\w/]+)\.py\n(def (\w+).*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^```python\n# in src/([\w/]+)/__init__\.py\n(.*?)^```", re.MULTILINE | re.DOTALL)


def files_of(page: str) -> list[tuple[str, str, str]]:
    """(src or tests, path without ending, text) of each file that a page shows."""
    return FILE.findall((PAGES / page).read_text())


@pytest.fixture
def installed(request, tmp_path, monkeypatch) -> Iterator[list[str]]:
    """What the page adds to src/smpo: modules, functions, a line of a registry. Its test files."""
    page, tests = request.param, []
    for kind, path, text in files_of(page):
        target = tmp_path / kind / f"{path}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        if kind == "src":
            room = importlib.import_module(".".join(path.split("/")[:-1]))
            monkeypatch.setattr(room, "__path__", [*room.__path__, str(target.parent)])
        else:
            tests.append(str(target))
    for path, text, name in FUNCTION.findall((PAGES / page).read_text()):
        module = importlib.import_module(path.replace("/", "."))
        written = dict(vars(module))
        exec(text, written)
        monkeypatch.setattr(module, name, written[name], raising=False)
    for package, line in LINE.findall((PAGES / page).read_text()):
        room = importlib.import_module(package.replace("/", "."))
        (registry,) = (value for value in vars(room).values() if isinstance(value, Registry))
        for name, member in Registry("shown", eval(f"{{{line}}}", {"Member": Member}))._entries.items():
            monkeypatch.setitem(registry._entries, name, member)
            assert registry.build({"name": name})
    yield tests
    for path in (path for kind, path, _ in files_of(page) if kind == "src"):
        sys.modules.pop(path.replace("/", "."), None)


@pytest.mark.parametrize("installed", sorted(path.name for path in PAGES.glob("*.md")), indirect=True)
def test_the_tests_that_a_page_shows_pass_on_its_code(installed):
    if not installed:
        pytest.skip("the page shows no code")
    for path in installed:
        module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("shown", path))
        module.__spec__.loader.exec_module(module)
        shown = [value for name, value in vars(module).items() if name.startswith("test_")]
        assert shown
        for test in shown:
            test()


def test_pages_are_found():
    shown = {path.stem for path in PAGES.glob("*.md") if files_of(path.name)}
    assert shown == {"add-label", "add-noising", "add-objective", "add-scorer"}
    assert Path(smpo.__file__).is_relative_to(PAGES.parents[1])
