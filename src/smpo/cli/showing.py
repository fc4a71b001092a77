"""What `smpo show` lists and prints, from the files alone: imports no torch."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any

import yaml

from smpo.pipeline.reading import lineage, overlaid, read_mapping, read_recipe
from smpo.pipeline.recipe_files import any_path, recipe_path, shipped_recipes, shipped_sweeps, sweep_path
from smpo.report.published import TRAINED, PublishedNumbers

WIDTH = 100
COLUMNS = (24, 18, 48, 6)
HEADS = ("method", "labels / noising / objective", "paper")
SHOWN = {"labels": ("winner_by",), "noising": ("inversion_steps",), "objective": ("beta", "gamma")}
"""Seam -> the settings that tell its members apart in a line."""
COLUMN_OF_PAPER = "pickscore"


def listing() -> str:
    """Every shipped recipe and sweep, by family, in lines of at most WIDTH characters."""
    parts = ["The paper's number is the median PickScore x 100 on HPDv2's prompts (Lu et al. 2025, Table 2)."]
    for family, names in groupby(sorted(shipped_recipes(), key=_family_and_name), key=lambda name: _family(name)):
        lines = [_line((family, *HEADS)), *(_line(recipe_cells(name)) for name in names)]
        parts.append("\n".join(lines))
    sweeps = [_line((name, title_of(sweep_path(name).read_text())), widths=(COLUMNS[0], WIDTH - COLUMNS[0] - 1))
              for name in shipped_sweeps()]
    parts.append("\n".join(["sweeps", *sweeps]))
    parts.append("`smpo show NAME` explains one; `smpo run RECIPE` and `smpo sweep SWEEP` run it.")
    return "\n\n".join(parts) + "\n"


def recipe_cells(name: str) -> tuple[str, str, str, str]:
    """Name, method, the three seams in short, and the paper's number of a shipped recipe."""
    content = read_recipe(name)
    seams = " / ".join(_in_short(content[seam], SHOWN[seam]) for seam in SHOWN)
    method = title_of(recipe_path(name).read_text()).partition(":")[0].partition(" on ")[0]
    return name, method, seams, papers_number(content)


def papers_number(content: Mapping[str, Any]) -> str:
    """The median PickScore that the paper prints for the model that a recipe trains; "-" where it prints none."""
    published = (content.get("report") or {}).get("published")
    if not published or TRAINED not in published["models"]:
        return "-"
    return PublishedNumbers(**published).text(TRAINED, COLUMN_OF_PAPER, "median")


def title_of(text: str) -> str:
    """The first line of a recipe or sweep, without its mark."""
    return text.partition("\n")[0].removeprefix("#").strip()


def comments_of(text: str) -> str:
    """The comment lines that a file begins with."""
    return "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))


def recipe_text(source: str) -> str:
    """A recipe with its comments; one with a base with all its keys, after a line that lists its own keys."""
    family = lineage(source)
    path, own = family[0]
    if len(family) == 1:
        return path.read_text()
    content: dict[str, Any] = {}
    for _, keys in reversed(family):
        content = overlaid(content, keys)
    behind = ", itself on ".join(base.stem for base, _ in family[1:])
    note = f"Built on {behind}; its own keys are {', '.join(_leaves(own))}."
    keys = yaml.dump(content, Dumper=_Inline, sort_keys=False, width=WIDTH + 20)
    return comments_of(path.read_text()) + as_comment(note) + keys


def is_sweep(source: str) -> bool:
    """Whether a name or file is that of a sweep: a sweep names the recipe that it varies.

    Raises:
        ConfigError: it is neither the one nor the other.
    """
    return "recipe" in read_mapping(any_path(source), where=source)


def as_comment(text: str) -> str:
    """A paragraph as YAML comment lines."""
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False))


class _Inline(yaml.SafeDumper):
    """YAML as the shipped recipes are written: settings of one member on one line, sections on lines of their own."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        node.flow_style = not any(isinstance(value, dict) for value in dict(mapping).values())
        return node


def _family(name: str) -> str:
    return recipe_path(name).parent.name


def _family_and_name(name: str) -> tuple[str, str]:
    return _family(name), name


def _in_short(member: Mapping[str, Any], shown: Sequence[str]) -> str:
    values = "x".join(f"{member[key]:g}" if isinstance(member[key], float) else str(member[key])
                      for key in shown if key in member)
    return f"{member['name']} {values}".strip()


def _leaves(content: Mapping[str, Any], above: str = "") -> list[str]:
    """Dotted names of the keys that a recipe sets itself, a named member's as one."""
    names = []
    for key, value in content.items():
        deeper = isinstance(value, Mapping) and "name" not in value
        names += _leaves(value, f"{above}{key}.") if deeper else [above + key]
    return names


def _line(cells: Sequence[str], *, widths: Sequence[int] = COLUMNS) -> str:
    shown = (textwrap.shorten(cell, width, placeholder=" ...") for cell, width in zip(cells, widths, strict=True))
    return " ".join(f"{cell:{width}}" for cell, width in zip(shown, widths, strict=True)).rstrip()
