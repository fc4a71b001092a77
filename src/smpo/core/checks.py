"""Checks of arguments that raise one-line errors. They import no torch: anything with a `shape` is checked."""

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

from smpo.core.errors import ConfigError

LONGEST = 100  # characters of a name that are compared; the time grows with their square
LISTED = 160   # characters of a list of names in a message, so that an error stays one line

DEVICE = re.compile(r"auto|cpu|(cuda|xpu|npu|hpu|mps)(:\d+)?")


def did_you_mean(name: str, known: Iterable[str], *, likeness: float = 0.5) -> str:
    """The hint " Did you mean 'x'?" for the known name nearest to `name`, or an empty string if none is near.

    `likeness` is the smallest ratio of difflib, in [0, 1], at which a name counts as near.
    """
    nearest = difflib.get_close_matches(name[:LONGEST], list(known), n=1, cutoff=likeness)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def listed(names: Iterable[str]) -> str:
    """The names, joined by commas; after LISTED characters the rest is counted: "a, b and 31 more"."""
    names, shown = list(names), list[str]()
    for name in names:
        if shown and sum(map(len, [*shown, name])) + 2 * len(shown) > LISTED:
            return f"{', '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(name)
    return ", ".join(shown)


def check_known(name: Any, known: Iterable[str], *, what: str) -> None:
    """Raise ConfigError unless `name` is one of `known`; the message lists these and hints at the nearest."""
    known = list(known)
    if not isinstance(name, str):
        raise ConfigError(f"{what}: its name must be a text, got {name!r}; known: {listed(known)}.")
    if name not in known:
        raise ConfigError(f"unknown {what} '{name}'; known: {listed(known)}.{did_you_mean(name, known)}")


def check_device(device: str, *, what: str) -> None:
    """Raise ConfigError unless `device` is "auto" or has the form of a torch device; it need not exist."""
    if not DEVICE.fullmatch(device):
        raise ConfigError(f"{what} must be auto, cpu, cuda, cuda:0 or the like, got '{device}'")


def check_positive(**values: float) -> None:
    """Raise ConfigError unless every keyword value is a finite number > 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} must be a finite number > 0, got {value}")


def check_fraction(**values: float) -> None:
    """Raise ConfigError unless every keyword value lies in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} must lie in [0, 1], got {value}")


def check_same_shape(**tensors: Any) -> None:
    """Raise ValueError unless all keyword tensors have the same shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError("shapes must be equal, got " + ", ".join(f"{n} {s}" for n, s in shapes.items()))


def check_batch(**tensors: Any) -> None:
    """Raise ValueError unless every keyword tensor has shape (B,), with the same B."""
    for name, tensor in tensors.items():
        if tensor.ndim != 1:
            raise ValueError(f"{name} must have shape (B,), got {tuple(tensor.shape)}; pass one number per pair")
    check_same_shape(**tensors)
