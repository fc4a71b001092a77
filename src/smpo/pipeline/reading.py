"""From a recipe's file to one plain mapping: YAML, and the bases that it builds on. Imports no torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smpo.core.errors import ConfigError
from smpo.pipeline.recipe_files import recipe_path
from smpo.pipeline.renamed import refuse_old_keys
from smpo.pipeline.yaml_text import parse_mapping, parse_value, read_text

BASE = "base"
KEY = re.compile(r"[^.\s]+(\.[^.\s]+)*")
SHOWN = 60  # characters of an override in a message


def read_mapping(path: Path, *, where: str) -> dict[str, Any]:
    """The mapping that the YAML file `path` holds; ConfigError names `where`, as the user wrote it, and the line."""
    return parse_mapping(read_text(path, where=where), where=where)


def parse_override(text: str) -> tuple[str, Any]:
    """Key and value of an `a.b.c=value`; see `yaml_text.parse_value`.

    Raises:
        ConfigError: there is no key or no "=", the value is empty, it is no YAML, or a key is one of smpo 0.1.
    """
    key, equals, value = text.partition("=")
    if not equals or not KEY.fullmatch(key):
        raise ConfigError(f"override must look like section.key=value, got {_shown(text)}")
    parsed = parse_value(value, where=f"override {_shown(text)}")
    refuse_old_keys(_nested(key, parsed))
    return key, parsed


def read_recipe(source: str) -> dict[str, Any]:
    """The mapping of a recipe file or shipped name, its keys laid over those of its `base`, which is taken out.

    Raises:
        ConfigError: no such recipe or base, bases that lead back to themselves, invalid YAML, a key of smpo 0.1.
    """
    content: dict[str, Any] = {}
    for _, own in reversed(lineage(source)):
        content = overlaid(content, own)
    return content


def lineage(source: str) -> list[tuple[Path, dict[str, Any]]]:
    """The file of a recipe and of each base behind it, nearest first, each with its own keys but for `base`."""
    path, where, files = recipe_path(source), source, list[tuple[Path, dict[str, Any]]]()
    while True:
        if path.resolve() in [known.resolve() for known, _ in files]:
            chain = " -> ".join([known.stem for known, _ in files] + [path.stem])
            raise ConfigError(f"{where}: base: {chain} goes in a circle; let one of them stand without a base")
        own = read_mapping(path, where=where)
        refuse_old_keys(own, where=where)
        base = own.pop(BASE, None)
        files.append((path, own))
        if base is None:
            return files
        path, where = _base_path(base, path, where), str(base)


def overlaid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`under` with the keys of `over`: sections key by key, null takes a key out (RFC 7396).

    A section with a `name` is a member of a seam (or a scorer, or an optimizer) and is replaced as a whole, since
    another member's settings would mean nothing to it.
    """
    content = dict(under)
    for key, value in over.items():
        below = content.get(key)
        if value is None:
            content.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(below, Mapping) and "name" not in value:
            content[key] = overlaid(below, value)
        else:
            content[key] = value
    return content


def _shown(text: str) -> str:
    """A text in quotes, shortened if it is long; characters that a terminal does not show are escaped."""
    cut = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return f"'{cut}'" if cut.isprintable() else ascii(cut)


def _nested(path: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} of "a.b"."""
    first, _, rest = path.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _base_path(base: Any, path: Path, where: str) -> Path:
    if not isinstance(base, str):
        raise ConfigError(f"{where}: base must be the name or file of a recipe, got {base!r}")
    beside = path.parent / base
    if beside.is_file():
        return beside
    try:
        return recipe_path(base)
    except ConfigError as error:
        raise ConfigError(f"{where}: base: {error}") from error
