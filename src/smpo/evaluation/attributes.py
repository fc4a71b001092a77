"""Shares of images with an attribute right, for scorers that judge single attributes, tested against the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smpo.evaluation.scores import ImageScores
from smpo.evaluation.statistics import Interval, holm_adjusted, share_interval, win_rate


@dataclass(frozen=True)
class AttributeChange:
    """How often one attribute is right, with the exact McNemar test against the baseline.

    Attributes:
        model: name of the set.
        scorer: name of the scorer.
        attribute: name of the attribute.
        accuracy: share of images with the attribute right, in [0, 1], with its Wilson interval.
        n: images whose prompt asks for the attribute.
        p_holm: p value, adjusted over the attributes of this set and scorer; None for the baseline itself.
    """

    model: str
    scorer: str
    attribute: str
    accuracy: Interval
    n: int
    p_holm: float | None


def attribute_changes(tables: Mapping[str, ImageScores], baseline: str, scorer: str) -> list[AttributeChange]:
    """Accuracy of every attribute of `scorer`, for all sets. Prompts are the independent units."""
    names = list(dict.fromkeys(key for row in tables[baseline].details[scorer] for key in row))
    per_prompt = tables[baseline].images_per_prompt
    prompts = {
        key: [i // per_prompt for i, row in enumerate(tables[baseline].details[scorer]) if key in row] for key in names
    }
    right = {model: _columns(table.details[scorer], names) for model, table in tables.items()}
    changes = []
    for model, columns in right.items():
        tested = [win_rate(columns[key], right[baseline][key], groups=prompts[key]).p_value for key in names]
        adjusted = [None] * len(names) if model == baseline else holm_adjusted(tested)
        changes += [
            AttributeChange(
                model, scorer, key, share_interval(columns[key], prompts[key]), len(columns[key]), p_holm
            )
            for key, p_holm in zip(names, adjusted, strict=True)
        ]
    return changes


def _columns(details: Sequence[Mapping[str, bool]], names: Sequence[str]) -> dict[str, np.ndarray]:
    return {key: np.array([row[key] for row in details if key in row]) for key in names}
