"""What a stage needs before it starts: the source of the pairs, and the artefacts of earlier stages."""

from collections.abc import Sequence
from pathlib import Path

from smpo.core.artefacts import MANIFEST
from smpo.core.errors import ConfigError
from smpo.data.formats import is_hub_id
from smpo.labels import LABELS
from smpo.pipeline.config import Recipe
from smpo.pipeline.stages import STAGES, stages_of

READS = {
    "score": ("pairs",), "label": ("pairs", "score"), "audit": ("pairs",), "cache": ("pairs",),
    "invert": ("pairs", "label", "cache"), "train": ("pairs", "label", "cache", "invert"), "generate": ("train",),
    "evaluate": ("generate",), "report": ("label", "train", "generate", "evaluate"),
}
"""Stage -> stages whose artefacts it reads, where the recipe needs them."""


def check_prerequisites(names: Sequence[str], recipe: Recipe, source: str) -> None:
    """Raise ConfigError unless everything that the stages `names` read exists, or one of them makes it.

    Args:
        names: of stages.
        recipe: of them.
        source: the name or file by which the user named the recipe, for the message.
    """
    missing = missing_before(names, recipe)
    if "pairs" in {*names, *missing}:
        _check_source(recipe, already="pairs" not in names)
    if missing:
        *rest, last = missing
        stages = f"{', '.join(rest)} and {last}" if rest else last
        raise ConfigError(
            f"`smpo {names[0]}` reads what {stages} should have made in {recipe.workdir}, and there is none; run "
            f"`smpo run {source}`, which does all stages in order, or `smpo {missing[0]} {source}` "
            f"{'first' if not rest else 'and so on first, in this order'}"
        )


def missing_before(names: Sequence[str], recipe: Recipe) -> list[str]:
    """The stages, in order, that have to be run before `names`."""
    needed = [*stages_of(recipe)]
    missing: set[str] = set()

    def look(stage: str) -> None:
        for before in READS.get(stage, ()):
            if before in needed and before not in names and before not in missing and not _is_there(before, recipe):
                missing.add(before)
                look(before)

    for name in names:
        look(name)
    return [stage for stage in STAGES if stage in missing]


def _is_there(stage: str, recipe: Recipe) -> bool:
    """Whether the stage has begun to write. Whoever reads the artefact checks that it is whole and fits."""
    folder = recipe.folder(stage)
    if stage == "score":
        tables = LABELS.build(recipe.labels).tables(tuple(recipe.pair_scorers))
        return all((folder / table / MANIFEST).exists() for table in tables)
    return (folder / MANIFEST).exists() or next(folder.glob(f"*/{MANIFEST}"), None) is not None


def _check_source(recipe: Recipe, *, already: bool) -> None:
    """Raise ConfigError if the source of the pairs does not exist."""
    source = recipe.data.source
    if source is None or Path(source).exists() or is_hub_id(source):
        return
    first = "" if not already else "; the stages before need it"
    raise ConfigError(f"data.source: {source} does not exist{first}; correct the path, or name your pairs with "
                      "data.source=...")
