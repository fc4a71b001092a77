"""Where weights come from: a hub id, a local folder, or data inside an installed package."""

from importlib.resources import files
from pathlib import Path

from smpo.errors import ConfigError

PACKAGE_PREFIX = "package://"


def resolve_source(source: str) -> str:
    """The local path or hub id that `source` stands for.

    `package://some.module/sub/folder` is a folder of package data; anything else is returned as it is.

    Raises:
        ConfigError: the package or the folder in it does not exist.
    """
    if not source.startswith(PACKAGE_PREFIX):
        return source
    module, _, inner = source.removeprefix(PACKAGE_PREFIX).partition("/")
    try:
        folder = Path(str(files(module))) / inner
    except ModuleNotFoundError as error:
        raise ConfigError(f"{source}: no package {module!r} is installed; correct the source") from error
    if not folder.exists():
        raise ConfigError(f"{source}: {folder} does not exist; correct the source or reinstall {module.split('.')[0]}")
    return str(folder)
