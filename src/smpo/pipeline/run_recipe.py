"""A recipe's stages, run from Python. Public as `smpo.run_recipe`."""

from collections.abc import Callable, Sequence

from smpo.core.checks import check_known
from smpo.pipeline.config import Recipe
from smpo.pipeline.prerequisites import check_prerequisites
from smpo.pipeline.stages import ASIDE, STAGES, run_stage, stages_of


def run_recipe(
    recipe: Recipe, stages: Sequence[str] | None = None, *, progress: Callable[..., None] | None = None
) -> dict[str, str]:
    """Run stages of a recipe in order, as `smpo run` does. Stages that are complete already are left alone.

    Args:
        recipe: what `load_recipe` gives. Its artefacts go to `recipe.workdir`.
        stages: names such as "pairs" or "train"; None runs all stages that the recipe needs.
        progress: called with (done, total) or (what, done, total) while a stage runs.

    Returns:
        Stage -> what it made, in one line, in the order in which the stages ran.

    Raises:
        ConfigError: a stage is unknown, a stage before is missing, or a setting does not fit the model or the data.
        DataError: an input is missing or damaged.
        StaleError: an artefact was made from other settings or inputs.
    """
    names = stages_of(recipe) if stages is None else list(stages)
    for name in names:
        check_known(name, [*STAGES, *ASIDE], what="stage")
    check_prerequisites(names, recipe, recipe.name)
    return {name: run_stage(name, recipe, progress or _silent)[0] for name in names}


def _silent(*values: str | int | None) -> None:
    """No progress is shown."""
