"""Expands `~` and $VARIABLES in the keys of a recipe that name a file, folder or hub id."""

import os
import re
from collections.abc import Mapping
from typing import Any

from smpo.core.errors import ConfigError

PLACES = {"source", "processor", "tokenizer", "clip", "init_weights", "reference_weights"}
"""Keys, in any section, that name a file, folder or hub id."""
PLACE_SECTIONS = {"paths", "generation.models", "evaluation.held_out"}
"""Sections whose texts are all places."""
PROMPT_PLACES = {"sampling.prompts", "generation.prompts"}  # or the prompts themselves
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
HOME = re.compile(r"~[\w.-]*(/|$)")


def with_places_expanded(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A copy of `content` in which every place has `~`, `~user`, $NAME and ${NAME} expanded.

    Raises:
        ConfigError: the user or the variable is unknown, or the variable is empty.
    """
    expanded: dict[str, Any] = {}
    for key, value in content.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            expanded[key] = with_places_expanded(value, f"{path}.")
        elif key in PLACES or above.rstrip(".") in PLACE_SECTIONS:
            expanded[key] = expanded_place(value, path)
        elif path in PROMPT_PLACES:
            several = isinstance(value, list | tuple)
            expanded[key] = [_file(item, path) for item in value] if several else _file(value, path)
        else:
            expanded[key] = value
    return expanded


def expanded_place(value: Any, where: str) -> Any:
    """A text with its `~` and variables expanded; any other value as it is."""
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            how = "empty" if name in os.environ else "not set"
            raise ConfigError(f"{where}: ${name} is {how} in the environment, got '{value}'; set it, or write the path")
        return os.environ[name]

    place = VARIABLE.sub(replace, value)
    if HOME.match(place):
        place = os.path.expanduser(place)
        if place.startswith("~"):
            raise ConfigError(f"{where}: no such user, got '{value}'; write the whole path")
    return place


def _file(value: Any, where: str) -> Any:
    """Expands a text that starts like a path; any other text is a prompt and stays as it is."""
    return expanded_place(value, where) if isinstance(value, str) and value.startswith(("~", "$", "/")) else value
