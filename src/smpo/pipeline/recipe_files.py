"""The recipes and sweeps that ship with the package, and how a name or a path is resolved. Imports no torch."""

import os
from pathlib import Path

from smpo.core.checks import did_you_mean, listed
from smpo.core.errors import ConfigError
from smpo.pipeline.renamed import RENAMED_RECIPES

FOLDER = Path(__file__).parents[1] / "recipes"
SWEEPS = FOLDER / "sweeps"


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.rglob("*.yaml") if SWEEPS not in path.parents)


def shipped_sweeps() -> list[str]:
    """Names of the sweeps that come with the package."""
    return sorted(path.stem for path in SWEEPS.rglob("*.yaml"))


def recipe_path(source: str) -> Path:
    """The file of a recipe given as a path or as a shipped name."""
    return _resolved(source, shipped_recipes(), what="recipe")


def sweep_path(source: str) -> Path:
    """The file of a sweep given as a path or as a shipped name."""
    return _resolved(source, shipped_sweeps(), what="sweep")


def any_path(source: str) -> Path:
    """The file of a recipe or sweep given as a path or as a shipped name."""
    return _resolved(source, [*shipped_recipes(), *shipped_sweeps()], what="recipe or sweep")


def _resolved(source: str, known: list[str], *, what: str) -> Path:
    path = Path(os.path.expanduser(source))
    is_file = path.is_file()
    if source in known:
        if is_file:
            raise ConfigError(f"'{source}' is a shipped {what} and a file here; write ./{source} for the file")
        return next(FOLDER.rglob(f"{source}.yaml"))
    if is_file:
        return path
    if path.exists():
        raise ConfigError(f"{source}: a {what} is a YAML file, got {'a folder' if path.is_dir() else 'no plain file'}")
    if source in RENAMED_RECIPES:
        raise ConfigError(f"{what} '{source}': its name is {RENAMED_RECIPES[source]} since smpo 0.2")
    beside = [name for name in (f"{source}.yaml", f"{source}.yml") if Path(name).is_file()]
    hint = f" Did you mean '{beside[0]}'?" if beside else did_you_mean(source.removesuffix(".yaml"), known)
    raise ConfigError(
        f"no {what} file and no shipped {what} '{source}'; shipped: {listed(known)} (`smpo show` lists all).{hint}"
    )
