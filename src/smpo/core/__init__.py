"""What every room stands on: errors, checks, registries, records, artefacts, processes, randomness.

Modules are imported on use, as those of `smpo.maths` are.
"""

from typing import TYPE_CHECKING

from smpo.core.lazy import submodules

if TYPE_CHECKING:
    from smpo.core import randomness, transfer

    __all__ = ["randomness", "transfer"]
else:
    __getattr__ = submodules(__name__)
