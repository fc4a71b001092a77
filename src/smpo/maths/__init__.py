"""The equations: one small pure function each, tensors in, tensors out.

Modules are imported on use: `from smpo import maths` and `maths.preference.dpo_loss(...)` import PyTorch when the
function is called. So a member of a seam is a few settings until it computes, and reading a recipe takes no PyTorch.
"""

from typing import TYPE_CHECKING

from smpo.core.lazy import submodules

if TYPE_CHECKING:
    from smpo.maths import betas, inversion, path, preference, smoothing, utility

    __all__ = ["betas", "inversion", "path", "preference", "smoothing", "utility"]
else:
    __getattr__ = submodules(__name__)
