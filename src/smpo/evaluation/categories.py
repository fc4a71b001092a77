"""A comparison broken down by the category of the prompts, such as PartiPrompts' categories or HPDv2's styles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smpo.evaluation.statistics import Interval, WinRate, bootstrap_interval, holm_adjusted, win_rate

SIGNIFICANCE = 0.05  # of Holm-adjusted p values


@dataclass(frozen=True)
class CategoryResult:
    """One set against the baseline on the prompts of one category, under one scorer.

    Attributes:
        category: name of the category.
        prompts: how many prompts it has.
        model: the set.
        scorer: the scorer.
        median: of the set's scores, in the scorer's units.
        baseline_median: of the baseline's scores.
        win_rate: of the set over the baseline.
        mean_difference: set minus baseline with its paired bootstrap interval.
        p_holm: sign test, adjusted over all categories, sets and scorers.
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


def verdict_of(shown: WinRate, p_adjusted: float | None) -> str:
    """"better", "worse" or "undecided": the sign of a significant change; an untested one is undecided."""
    if p_adjusted is None or p_adjusted >= SIGNIFICANCE:
        return "undecided"
    return "better" if shown.prompts_won > shown.prompts_lost else "worse"


def by_category(
    rows: Mapping[str, Mapping[str, np.ndarray]], baseline: str, categories: Sequence[str], *, seed: int = 0
) -> tuple[CategoryResult, ...]:
    """Every set but the baseline, on every category, under every scorer; categories in alphabetical order.

    Args:
        rows: set -> scorer -> scores, shape (n, k).
        baseline: one of the sets.
        categories: of each of the n prompts.
        seed: of the bootstrap.
    """
    members = {name: np.flatnonzero(np.asarray(categories) == name) for name in sorted(set(categories))}
    found = []
    for name, chosen in members.items():
        for model in rows:
            for scorer, theirs in rows[baseline].items():
                if model != baseline:
                    ours = rows[model][scorer]
                    found.append((name, model, scorer, ours[chosen].astype(np.float64), theirs[chosen]))
    rates = [win_rate(ours, theirs) for *_, ours, theirs in found]
    adjusted = holm_adjusted([rate.p_value for rate in rates])
    return tuple(
        CategoryResult(
            name, len(ours), model, scorer, float(np.median(ours)), float(np.median(theirs)), rate,
            bootstrap_interval(ours - theirs, "mean", seed=seed), p_holm,
        )
        for (name, model, scorer, ours, theirs), rate, p_holm in zip(found, rates, adjusted, strict=True)
    )
