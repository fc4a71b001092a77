"""From a recipe's file to one plain mapping: YAML, and the bases that it builds on. Imports nothing heavy."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from smpo.errors import ConfigError
from smpo.recipes import recipe_path

BASE = "base"


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-5 is a number, as everywhere else, and not a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_mapping(text: str, *, where: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; ConfigError names `where` it came from when it holds none."""
    content = _parsed(text, where=where)
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: must be a mapping of keys, got {type(content).__name__}")
    return content


def parse_override(text: str) -> tuple[str, Any]:
    """Key and value of an `a.b.c=value`; the value is read as YAML.

    Raises:
        ConfigError: there is no key or no "=", or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"override must look like section.key=value, got '{text}'")
    return key, _parsed(value, where=f"override '{text}'")


def read_recipe(source: str) -> dict[str, Any]:
    """The mapping of a recipe file or shipped name, its keys laid over those of its `base`, which is taken out.

    Raises:
        ConfigError: no such recipe or base, bases that lead back to themselves, invalid YAML.
    """
    content: dict[str, Any] = {}
    for _, own in reversed(lineage(source)):
        content = overlaid(content, own)
    return content


def lineage(source: str) -> list[tuple[Path, dict[str, Any]]]:
    """The file of a recipe and of each base behind it, nearest first, each with its own keys but for `base`."""
    path, found, where = recipe_path(source), [], source
    while True:
        if path.resolve() in [known.resolve() for known, _ in found]:
            chain = " -> ".join([known.stem for known, _ in found] + [path.stem])
            raise ConfigError(f"{where}: base: {chain} goes in a circle; let one of them stand without a base")
        own = parse_mapping(path.read_text(), where=where)
        base = own.pop(BASE, None)
        found.append((path, own))
        if base is None:
            return found
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


def _parsed(text: str, *, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from error


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
