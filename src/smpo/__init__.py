"""SmPO-Diffusion: smoothed preference optimization of text-to-image diffusion models, and its baselines.

The names in `__all__` are the public Python API. It follows semantic versioning: before 1.0, a minor version may change
it, and CHANGELOG.md says how. Everything else in this package is internal and may change in any version.

| what | names |
| --- | --- |
| score images | `load_scorer`, `score_images` |
| compare two image sets | `compare` (of scores), `compare_images` |
| load and run recipes | `load_recipe`, `run_recipe` |
| losses, one pure function each | `dpo_loss`, `smpo_loss`, `ipo_loss`, `cdpo_loss`, `linear_loss`, `mapo_loss`, \
`kto_loss` |
| what losses are made of | `implicit_margin`, `implicit_reward`, `preference_logit`, `smoothed_probability`, \
`mean_squared_error` |

Importing `smpo` imports neither torch nor any other large library: each name is imported on its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smpo.evaluation.two_sets import compare, compare_images
    from smpo.maths.preference import (
        cdpo_loss,
        dpo_loss,
        implicit_margin,
        ipo_loss,
        linear_loss,
        mapo_loss,
        mean_squared_error,
        preference_logit,
        smpo_loss,
    )
    from smpo.maths.smoothing import smoothed_probability
    from smpo.maths.utility import implicit_reward, kto_loss
    from smpo.pipeline.config import load_recipe
    from smpo.pipeline.run_recipe import run_recipe
    from smpo.rewards.scorer_api import load_scorer, score_images

__version__ = "0.2.0"

__all__ = [
    "__version__", "cdpo_loss", "compare", "compare_images", "dpo_loss", "implicit_margin", "implicit_reward",
    "ipo_loss", "kto_loss", "linear_loss", "load_recipe", "load_scorer", "mapo_loss", "mean_squared_error",
    "preference_logit", "run_recipe", "score_images", "smoothed_probability", "smpo_loss",
]

_HOMES = {
    "smpo.evaluation.two_sets": ("compare", "compare_images"),
    "smpo.maths.preference": (
        "cdpo_loss", "dpo_loss", "implicit_margin", "ipo_loss", "linear_loss", "mapo_loss", "mean_squared_error",
        "preference_logit", "smpo_loss",
    ),
    "smpo.maths.smoothing": ("smoothed_probability",),
    "smpo.maths.utility": ("implicit_reward", "kto_loss"),
    "smpo.pipeline.config": ("load_recipe",),
    "smpo.pipeline.run_recipe": ("run_recipe",),
    "smpo.rewards.scorer_api": ("load_scorer", "score_images"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, imported on its first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'smpo' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
