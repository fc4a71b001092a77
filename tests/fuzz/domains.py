"""The domains, and the cases of each: fixed ones, and as many at random as are asked for."""

import random
from collections.abc import Callable, Iterator

from tests.fuzz import (
    artefacts,
    changes,
    formats,
    layouts,
    models,
    overrides,
    pictures,
    prompt_files,
    recipe_files,
    rows,
    tables,
)
from tests.fuzz.case import Case

Fixed = Callable[[], list[Case]]
AtRandom = Callable[[random.Random], Case]

DOMAINS: dict[str, tuple[Fixed, AtRandom]] = {
    "overrides": (overrides.fixed, overrides.at_random),
    "recipes": (recipe_files.fixed, recipe_files.at_random),
    "rows": (rows.fixed, rows.at_random),
    "tables": (tables.fixed, rows.at_random),
    "pictures": (pictures.fixed, pictures.at_random),
    "layouts": (layouts.fixed, layouts.at_random),
    "prompts": (prompt_files.fixed, prompt_files.at_random),
    "models": (models.fixed, models.at_random),
    "formats": (formats.fixed, models.at_random),
    "artefacts": (artefacts.fixed, artefacts.at_random),
    "changes": (changes.fixed, artefacts.at_random),
}
"""Name -> (the fixed cases, one more at random)."""


def cases_of(domain: str, *, seed: int, count: int, fixed: bool = True) -> Iterator[Case]:
    """The fixed cases of `domain`, then `count` random ones that `seed` determines."""
    listed, at_random = DOMAINS[domain]
    if fixed:
        yield from listed()
    rng = random.Random(f"{domain}/{seed}")
    for _ in range(count):
        yield at_random(rng)
