"""The notebooks of examples/: without outputs, and they run; the one for a GPU fits the card that it names."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from smpo.cost.estimate import counts_of, estimate
from smpo.pipeline.config import load_recipe

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NOT_RUN = "sdxl-lora-24gb.ipynb"  # needs a GPU and the weights of SDXL
CARD_GIB = 24


def cells(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped_and_their_python_parses(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    for cell in (cell for cell in book.cells if cell.cell_type == "code"):
        assert cell.outputs == [] and cell.execution_count is None
        ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith(("!", "%"))))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_notebooks_lead_somewhere(path):
    for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)", "\n".join(cells(path, "markdown"))):
        assert (path.parent / link).exists(), link


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.name != NOT_RUN], ids=lambda path: path.stem
)
def test_the_notebook_runs(path, tmp_path):
    """In an empty folder, on the tiny world; a cell that raises fails."""
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_the_notebook_that_was_not_run_says_so():
    assert "was not run where it was written" in cells(FOLDER / NOT_RUN, "markdown")[0]


@pytest.mark.slow
def test_the_recipe_of_the_notebook_for_a_card_fits_it(tmp_path):
    (text,) = re.findall(r'RECIPE = """(.*?)"""', "\n".join(cells(FOLDER / NOT_RUN, "code")), flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text)
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert estimate(recipe, counts_of(recipe, (800, 800))).memory.peak < CARD_GIB * 2**30 * 0.9
