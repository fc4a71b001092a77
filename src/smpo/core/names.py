"""Names that become names of folders and files: of recipes, models, scorers, sweeps."""

import re
from collections.abc import Iterable

from smpo.core.errors import ConfigError

BASE = "base"  # the model before training, with which all others are compared
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
MAX_NAME = 100  # characters; a file system takes 255 bytes, and names are parts of longer ones
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


def check_name(name: str, *, what: str) -> None:
    """Raise ConfigError unless `name` can name a folder or file on every system."""
    if not (isinstance(name, str) and NAME.fullmatch(name)) or name.endswith(".") or len(name) > MAX_NAME:
        shown = repr(name) if len(str(name)) <= 2 * MAX_NAME else f"{str(name)[:MAX_NAME]!r}..."
        raise ConfigError(
            f"{what} {shown} cannot be the name of a folder: use 1 to {MAX_NAME} letters, digits, '_', '-' and '.', "
            "with no '.' first or last"
        )
    if name.partition(".")[0].lower() in DEVICES:
        raise ConfigError(f"{what} {name!r} is the name of a device on Windows; choose another")


def check_names(names: Iterable[str], *, what: str, reserved: Iterable[str] = ()) -> None:
    """Raise ConfigError unless each of `names` passes `check_name` and no two are equal, upper and lower case alike.

    No name may equal one of `reserved`; these are not checked.
    """
    taken = {name.lower(): name for name in reserved}
    for name in names:
        check_name(name, what=what)
        if name.lower() in taken:
            raise ConfigError(f"{what} {name!r}: the name {taken[name.lower()]!r} is taken; choose another")
        taken[name.lower()] = name
