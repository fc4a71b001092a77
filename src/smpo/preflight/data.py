"""Probes of the data: prompts, the first rows of the pairs, the held-out pairs."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from smpo.core.errors import DataError
from smpo.data.formats import detect_format, open_source
from smpo.data.pair_set import PairSet
from smpo.data.records import PairSource
from smpo.pipeline.config import Recipe
from smpo.pipeline.stages import prompts_of
from smpo.preflight.findings import Note, Outcome
from smpo.preparation.cache import LatentCache
from smpo.preparation.label import LabelTable
from smpo.preparation.row_checks import CHOICES, check_pair

FIRST_ROWS = 16
"""Number of rows that are read and decoded: enough to notice a wrong column, and quick."""


def prompts(recipe: Recipe) -> Iterator[Note]:
    """Check that the prompts can be read."""
    sections = {"sampling": recipe.sampling, "generation": recipe.generation}
    for name, section in sections.items():
        if section is not None:
            yield Note(f"{name}: {len(prompts_of(section)):,}")


def pairs(recipe: Recipe) -> Iterator[Note]:
    """Check that the source of the pairs can be read, by its first rows."""
    reader = open_pairs(recipe)
    if reader is None:
        yield Note("to be sampled from the model")
        return
    options = recipe.data.options
    checked = [check_pair(raw, options) for raw in itertools.islice(reader.read(range(len(reader))), FIRST_ROWS)]
    reasons = Counter(pair.reason or "sound" for pair in checked)
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    text = (f"{recipe.data.source}: read as {reader.describe()}; {len(reader):,} rows; the first {len(checked)}: "
            f"{counted}")
    defects = sum(count for reason, count in reasons.items() if reason not in (*CHOICES, "sound"))
    if defects == len(checked):
        first = next(pair for pair in checked if pair.reason)
        raise DataError(f"{text}: {first.detail}; correct the source or data.format")
    yield Note(text, Outcome.WARNING if defects else Outcome.OK)


def open_pairs(recipe: Recipe) -> PairSource | None:
    """The reader of the pairs; None if the model is to generate them."""
    options, source = recipe.data.options, recipe.data.source
    if source is None:
        return None
    format = options.format if options.format != "auto" else detect_format(source)[0]
    return open_source(source, format=format, **options.how_to_read)


def num_rows(recipe: Recipe) -> int | None:
    """Number of rows of the source that will be read; None if there is no readable source."""
    try:
        reader = open_pairs(recipe)
    except DataError:
        return None  # the probe `pairs` reports it
    return None if reader is None else min(len(reader), recipe.data.max_rows or len(reader))


def held_out(recipe: Recipe) -> Iterator[Note]:
    """Check that the held-out pairs with their labels and cache are there."""
    section = recipe.evaluation.held_out
    if section is not None:
        held_out_pairs = PairSet.open(Path(section.pairs))
        LabelTable.open(Path(section.label))
        LatentCache(Path(section.cache))
        yield Note(f"{len(held_out_pairs):,} in {section.pairs}")
