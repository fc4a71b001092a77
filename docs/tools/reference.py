"""The reference pages, made from the code: every command with its options, every recipe key with type and default.

    python docs/tools/reference.py FOLDER      # writes them; mkdocs makes them by itself (links.py)
"""

import dataclasses
import inspect
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from smpo.cli.app import app
from smpo.pipeline.config import SEAMS, Recipe
from smpo.rewards import SCORERS

POINTS = {  # plug-in points: the section that names a member -> what stands above its page's part
    "model": "The model family.",
    "labels": "Who wins a pair, and how surely. Explained in [labels](../labels.md).",
    "noising": "How an image becomes a noisy latent and a target.",
    "objective": "The loss of a pair. Equations in [equations](../equations.md).",
}
REQUIRED = "**required**"


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a recipe: its dotted name, and three texts."""

    name: str
    kind: str
    default: str
    description: str


def pages() -> dict[str, str]:
    """Path below docs/ -> Markdown of every page."""
    return {"reference/cli.md": commands_page(), "reference/recipe-keys.md": recipe_page()}


def cell(text: str) -> str:
    """`text` on one line, fit for a cell of a table; None as recipes spell it."""
    return re.sub(r"\bNone\b", "null", re.sub(r"\s+", " ", text)).replace("|", "\\|").strip()


# --- commands ---

def commands() -> dict[str, Any]:
    """Name -> command, as typer makes it, in the order in which `smpo --help` lists them."""
    return dict(typer.main.get_command(app).commands)


def commands_page() -> str:
    """Every verb with its help, arguments and options."""
    rows = [f"| [`smpo {name}`](#smpo-{name}) | {cell(one.help or '')} |" for name, one in commands().items()]
    head = (
        "# Commands\n\nMade from the code. `smpo COMMAND --help` prints the same.\n\n"
        "A stage takes a recipe (a YAML file, or the name of a shipped one) and overrides of its keys, "
        "such as `training.steps=100` ([recipe keys](recipe-keys.md)).\n"
    )
    parts = [_command(name, one) for name, one in commands().items()]
    return "\n".join([head, "| command | what it does |", "| --- | --- |", *rows, *parts])


def _command(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"smpo {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    rows = [_row(one, context) for one in command.params]
    return "\n".join([
        f"\n## smpo {name}\n", cell(command.help or ""), f"\n```\n{usage}\n```\n",
        "| argument or option | meaning | default |", "| --- | --- | --- |", *rows,
    ])


def _row(parameter: Any, context: Any) -> str:
    spelling, meaning = parameter.get_help_record(context) or (parameter.name, "")
    meaning = re.sub(r"\s*\[(?:default: [^]]*|required)\]", "", meaning)  # they have a column of their own
    default = REQUIRED if parameter.required else parameter.default
    shown = "" if default in (None, False, ()) else default if parameter.required else f"`{default}`"
    return f"| `{cell(spelling)}` | {cell(meaning)} | {shown} |"


# --- recipe keys ---

def recipe_page() -> str:
    """Every key of a recipe, by section; then the members of the plug-in points with theirs."""
    parts = [
        "# Recipe keys\n\nMade from the code: every key with its type, default and meaning. On the command line a key\n"
        "is written with dots: `training.optimizer.lr=1e-5`. `smpo run RECIPE --dry-run` prints a recipe with\n"
        "every default filled in; an unknown key is an error that names the nearest one.\n"
    ]
    for section, keys in sections().items():
        parts += [f"\n## {section}\n", _sentence(section), table(keys)]
    for point, sentence in POINTS.items():
        parts += [f"\n## {point}: members\n", sentence + f" `{point}.name` names one.\n"]
        for name, keys in members(SEAMS[point]).items():
            parts += [f"\n### {point}.name: {name}\n", _first_line(SEAMS[point].resolve(name)) + "\n", table(keys)]
    parts += [
        "\n## scorers: members\n",
        "For `scorer`, `scoring.also.NAME` and `evaluation.scorers.NAME`. What each is: [scorers](../scorers.md).\n",
    ]
    for name, keys in members(SCORERS).items():
        parts += [f"\n### scorer.name: {name}\n", _first_line(SCORERS.settings_class(name)) + "\n", table(keys)]
    return "\n".join(parts) + "\n"


def sections() -> dict[str, list[Key]]:
    """Title -> keys: those of the recipe itself first, then each section's."""
    own = [key for key in keys_of(Recipe, "") if "." not in key.name]
    rest = {name: list(keys_of(model, f"{name}.")) for name, model in _models(Recipe)}
    return {"The recipe itself": own, **rest}


def members(registry: Any) -> dict[str, list[Key]]:
    """Member -> its own settings."""
    return {name: list(keys_of(registry.settings_class(name), "")) for name in registry}


def all_keys() -> set[str]:
    """Every dotted key, members' keys included (`noising.inversion_steps`)."""
    found = {key.name for keys in sections().values() for key in keys}
    for point in POINTS:
        found |= {f"{point}.name", *(f"{point}.{key.name}" for keys in members(SEAMS[point]).values() for key in keys)}
    found |= {"scorer.name", *(f"scorer.{key.name}" for keys in members(SCORERS).values() for key in keys)}
    return found


def keys_of(model: type, prefix: str) -> Iterator[Key]:
    """The keys of a pydantic section, nested ones included, or of a dataclass of settings."""
    described = attributes_of(model)
    if not issubclass(model, BaseModel):
        hints = get_type_hints(model)
        for field in dataclasses.fields(model):
            if field.init:
                yield Key(f"{prefix}{field.name}", type_text(hints[field.name]), _value(field.default),
                          described.get(field.name, ""))
        return
    for name, field in model.model_fields.items():
        nested = _model_in(field.annotation)
        kind = "section" if nested else type_text(field.annotation)
        yield Key(f"{prefix}{name}", kind, "" if nested else _value(field.default),
                  field.description or described.get(name, "") or (_first_line(nested) if nested else ""))
        if nested and prefix:
            yield from keys_of(nested, f"{prefix}{name}.")


def _models(model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    found = [(name, _model_in(field.annotation)) for name, field in model.model_fields.items()]
    return [(name, nested) for name, nested in found if nested]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section of `X` or `X | None`."""
    return next((one for one in (annotation, *get_args(annotation))
                 if inspect.isclass(one) and issubclass(one, BaseModel)), None)


def attributes_of(model: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say under "Attributes:"."""
    found: dict[str, str] = {}
    for base in reversed(inspect.getmro(model)):
        _, _, rest = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for match in re.finditer(r"^    (\w+): (.*(?:\n        .*)*)", rest, flags=re.MULTILINE):
            found[match[1]] = cell(match[2])
    return found


def type_text(annotation: Any) -> str:
    """A type as a reader of recipes knows it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else type_text(one) for one in arguments)
    if origin is tuple:
        inner = [one for one in arguments if one is not Ellipsis]
        return "list of " + type_text(inner[0]) if Ellipsis in arguments else ", ".join(map(type_text, inner))
    if origin is dict:
        return "mapping"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def table(keys: list[Key]) -> str:
    """Keys as a Markdown table."""
    if not keys:
        return "No settings.\n"
    rows = [f"| `{key.name}` | {cell(key.kind)} | {key.default} | {cell(key.description)} |" for key in keys]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _value(default: Any) -> str:
    if default is PydanticUndefined or default is dataclasses.MISSING:
        return REQUIRED
    return f"`{json.dumps(default)}`"


def _sentence(section: str) -> str:
    model = dict(_models(Recipe)).get(section)
    return (_first_line(model) + "\n") if model else "The sections below, and what stands beside them.\n"


def _first_line(thing: Any) -> str:
    text = thing.__dict__.get("__doc__") or ""
    return cell(inspect.cleandoc(text).split("\n\n")[0])


if __name__ == "__main__":
    for path, text in pages().items():
        written = Path(sys.argv[1]) / path
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(text)
