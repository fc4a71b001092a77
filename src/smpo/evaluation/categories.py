"""A comparison broken down by the category of the prompts, such as PartiPrompts' categories or HPDv2's styles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smpo.evaluation.statistics import Interval, WinRate, bootstrap_interval, holm_adjusted, verdict_of, win_rate


@dataclass(frozen=True)
class CategoryResult:
    """One set against the baseline on the prompts of one category, under one scorer.

    Attributes:
        category: name of the category.
        prompts: number of its prompts.
        model: name of the set.
        scorer: name of the scorer.
        median: median of the set's scores, in the scorer's units.
        baseline_median: median of the baseline's scores.
        win_rate: win-rate of the set over the baseline.
        mean_difference: mean score of the set minus the baseline's, with its paired bootstrap interval.
        p_holm: p value of the sign test, adjusted over all categories, sets and scorers.
    """

    category: str
    prompts: int
    model: str
    scorer: str
    median: float
    baseline_median: float
    win_rate: WinRate
    mean_difference: Interval
    p_holm: float

    @property
    def verdict(self) -> str:
        """"better", "worse" or "undecided", as in `compare.Pairing`."""
        return verdict_of(self.win_rate, self.p_holm)


def by_category(
    rows: Mapping[str, Mapping[str, np.ndarray]], baseline: str, categories: Sequence[str], *, seed: int = 0
) -> tuple[CategoryResult, ...]:
    """Every set but the baseline, on every category, under every scorer; categories in alphabetical order.

    Args:
        rows: set -> scorer -> scores, shape (n, k).
        baseline: one of the sets.
        categories: category of each of the n prompts.
        seed: seed of the bootstrap.
    """
    members = {name: np.flatnonzero(np.asarray(categories) == name) for name in sorted(set(categories))}
    cells = [
        (name, model, scorer, rows[model][scorer][chosen].astype(np.float64), base[chosen])
        for name, chosen in members.items() for model in rows if model != baseline
        for scorer, base in rows[baseline].items()
    ]
    rates = [win_rate(scores, base) for *_, scores, base in cells]
    adjusted = holm_adjusted([rate.p_value for rate in rates])
    return tuple(
        CategoryResult(
            name, len(scores), model, scorer, float(np.median(scores)), float(np.median(base)), rate,
            bootstrap_interval(scores - base, "mean", seed=seed), p_holm,
        )
        for (name, model, scorer, scores, base), rate, p_holm in zip(cells, rates, adjusted, strict=True)
    )
