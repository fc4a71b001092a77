"""The recipes that come with the package, as YAML, and how they are found. Imports nothing heavy."""

from pathlib import Path

from smpo.checks import did_you_mean
from smpo.errors import ConfigError

FOLDER = Path(__file__).parent


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.rglob("*.yaml"))


def recipe_path(source: str) -> Path:
    """The file of a recipe given as a path or as a shipped name."""
    if Path(source).is_file():
        return Path(source)
    for path in FOLDER.rglob("*.yaml"):
        if path.stem == source:
            return path
    known = shipped_recipes()
    hint = did_you_mean(source, known)
    raise ConfigError(f"no recipe file and no shipped recipe '{source}'; shipped: {', '.join(known)}.{hint}")
