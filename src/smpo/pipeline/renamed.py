"""Keys and recipes that had another name in smpo 0.1: refused in one line that names the new one."""

from collections.abc import Mapping
from typing import Any

from smpo.core.errors import ConfigError

RENAMED_KEYS = {
    "init_unet": "init_weights",
    "ref_unet": "reference_weights",
    "training.stored_visits": "training.cached_inversion_epochs",
    "noising.links": "noising.chain_length",
}
"""Dotted key of smpo 0.1 -> its key since 0.2."""
RENAMED_RECIPES = {f"{family}-smpo-stored": f"{family}-smpo-cached" for family in ("sd15", "sdxl", "tiny")}
"""Shipped recipe of smpo 0.1 -> its name since 0.2."""


def refuse_old_keys(content: Mapping[str, Any], *, where: str = "", above: str = "") -> None:
    """Raise ConfigError for a key of smpo 0.1 anywhere in `content`, whatever its value, null included.

    Args:
        content: keys of a recipe, nested.
        where: file that they come from, for the message; empty where the message needs none.
        above: dotted keys of the sections around `content`, with a dot at the end.
    """
    for key, value in content.items():
        path = f"{above}{key}"
        if path in RENAMED_KEYS:
            place = f"{where}: " if where else ""
            raise ConfigError(f"{place}{path}: its name is {RENAMED_KEYS[path]} since smpo 0.2; rename it")
        if isinstance(value, Mapping):
            refuse_old_keys(value, where=where, above=f"{path}.")
