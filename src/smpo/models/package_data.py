"""Data inside installed packages as a source: `package://some.module/sub/folder`."""

from importlib.resources import files
from pathlib import Path

from smpo.core.errors import ConfigError

PACKAGE_PREFIX = "package://"


def resolve_source(source: str) -> str:
    """The local path or hub id that `source` stands for.

    `package://some.module/sub/folder` is a folder of package data, a leading `~` is the home folder; anything else is
    returned as it is.

    Raises:
        ConfigError: the package or the folder in it does not exist.
    """
    if source.startswith("~"):
        return _at_home(source)
    if not source.startswith(PACKAGE_PREFIX):
        return source
    module, _, inner = source.removeprefix(PACKAGE_PREFIX).partition("/")
    try:
        folder = Path(str(files(module))) / inner
    except (ModuleNotFoundError, ValueError, TypeError) as error:  # the last two: an empty name, a name from a dot on
        raise ConfigError(f"{source}: no package {module!r} is installed; correct the source") from error
    if not folder.exists():
        raise ConfigError(f"{source}: {folder} does not exist; correct the source or reinstall {module.split('.')[0]}")
    return str(folder)


def _at_home(source: str) -> str:
    try:
        return str(Path(source).expanduser())
    except RuntimeError as error:
        raise ConfigError(f"{source}: this user's home folder is not known; write the path out") from error
