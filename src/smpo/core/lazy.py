"""Modules of a package that are imported on use: `from smpo import maths`, then `maths.preference.dpo_loss(...)`."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType


def submodules(package: str) -> Callable[[str], ModuleType]:
    """A module-level `__getattr__` of `package` that imports the submodule of the name asked for."""

    def imported(name: str) -> ModuleType:
        full = f"{package}.{name}"
        try:
            return import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise
            raise AttributeError(f"module {package} has no attribute {name}") from error

    return imported
