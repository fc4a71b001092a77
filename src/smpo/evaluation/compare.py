"""Comparison of evaluated image sets: medians, means, paired win-rates, and signs of over-optimisation."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smpo.checks import check_known
from smpo.errors import DataError
from smpo.evaluation.scores import ScoreTable
from smpo.evaluation.statistics import (
    Interval,
    WinRate,
    bootstrap_interval,
    holm_adjusted,
    median_difference,
    proportion_interval,
    win_rate,
)

SIGNIFICANCE = 0.05  # of Holm-adjusted p values


@dataclass(frozen=True)
class Summary:
    """Scores of one set under one scorer: n images, median and mean with their bootstrap intervals."""

    n: int
    median: Interval
    mean: Interval


@dataclass(frozen=True)
class Pairing:
    """Set `ours` against set `theirs` under one scorer, paired by prompt and seed.

    Attributes:
        win_rate: of `ours`.
        p_holm: sign test adjusted over all sets and scorers of the comparison; None unless `theirs` is the baseline.
        median_difference: median(ours) - median(theirs), in the scorer's units; None unless `theirs` is the baseline.
        shift: mean difference in standard deviations of `theirs`, so that scorers share an axis; None likewise.
    """

    ours: str
    theirs: str
    scorer: str
    win_rate: WinRate
    p_holm: float | None = None
    median_difference: Interval | None = None
    shift: Interval | None = None

    @property
    def verdict(self) -> str:
        """"better", "worse" or "undecided": the sign of the significant change against the baseline."""
        if self.p_holm is None or self.p_holm >= SIGNIFICANCE:
            return "undecided"
        return "better" if self.win_rate.wins > self.win_rate.losses else "worse"


@dataclass(frozen=True)
class OverOptimisation:
    """Whether `model` gained on the reward it was trained on while scorers that it never saw fell.

    Attributes:
        model: the set.
        training_reward: the scorer whose labels it was trained on.
        rises: more wins than losses under the training reward.
        falling: independent scorers that are significantly worse than the baseline.
    """

    model: str
    training_reward: str
    rises: bool
    falling: tuple[str, ...]

    @property
    def flagged(self) -> bool:
        """Whether the reward rises and an independent scorer falls."""
        return self.rises and bool(self.falling)


@dataclass(frozen=True)
class AttributeChange:
    """How often one attribute is right, with the exact McNemar test against the baseline.

    Attributes:
        accuracy: share of images with the attribute right, in [0, 1], with its Wilson interval.
        n: images that have the attribute.
        p_holm: adjusted over the attributes of this set and scorer; None for the baseline itself.
    """

    model: str
    scorer: str
    attribute: str
    accuracy: Interval
    n: int
    p_holm: float | None


@dataclass(frozen=True)
class Comparison:
    """Evaluated sets side by side.

    Attributes:
        baseline: the set that the others are measured against.
        models: names of the sets, in the given order.
        num_prompts: prompts of each set.
        images_per_prompt: images of each prompt.
        units: scorer -> unit.
        summaries: model -> scorer -> summary.
        pairings: every ordered pair of models under every scorer.
        over_optimisation: one entry per set, when the training reward is known.
        attributes: accuracy of each attribute, for scorers that give details.
        fingerprints: model -> fingerprint of its evaluation.
    """

    baseline: str
    models: tuple[str, ...]
    num_prompts: int
    images_per_prompt: int
    units: Mapping[str, str]
    summaries: Mapping[str, Mapping[str, Summary]]
    pairings: tuple[Pairing, ...]
    over_optimisation: tuple[OverOptimisation, ...]
    attributes: tuple[AttributeChange, ...]
    fingerprints: Mapping[str, str]

    def pairing(self, ours: str, scorer: str, theirs: str | None = None) -> Pairing:
        """`ours` against `theirs` (the baseline, unless given) under `scorer`."""
        wanted = (ours, theirs or self.baseline, scorer)
        return next(p for p in self.pairings if (p.ours, p.theirs, p.scorer) == wanted)

    def to_json(self) -> str:
        """The comparison as JSON text, with the verdicts written out."""
        content = dataclasses.asdict(self)
        for shown, pairing in zip(content["pairings"], self.pairings, strict=True):
            shown["verdict"] = pairing.verdict
        for shown, entry in zip(content["over_optimisation"], self.over_optimisation, strict=True):
            shown["flagged"] = entry.flagged
        return json.dumps(content, indent=1) + "\n"


def compare(
    sets: Mapping[str, Path], baseline: str, *, training_reward: str | None = None, seed: int = 0
) -> Comparison:
    """The comparison of two or more evaluations of the same prompts and seeds.

    Args:
        sets: model name -> folder of its evaluation.
        baseline: one of the names.
        training_reward: scorer that made the training labels, for the over-optimisation check.
        seed: of the bootstrap.

    Raises:
        ConfigError: the baseline or the training reward is unknown.
        DataError: the sets differ in prompts, seeds or scorers, or one is no complete evaluation.
    """
    check_known(baseline, sets, what="baseline")
    tables = {name: ScoreTable.open(folder) for name, folder in sets.items()}
    first = tables[baseline]
    for name, table in tables.items():
        _check_paired(first, table, baseline, name)
    if training_reward is not None:
        check_known(training_reward, first.scores, what="training reward")
    pairings = _pairings(tables, baseline, seed)
    return Comparison(
        baseline=baseline, models=tuple(tables), num_prompts=len(first.prompts) // first.images_per_prompt,
        images_per_prompt=first.images_per_prompt, units=dict(first.units),
        summaries={name: _summaries(table, seed) for name, table in tables.items()},
        pairings=pairings, over_optimisation=_over_optimisation(pairings, baseline, training_reward),
        attributes=tuple(itertools.chain.from_iterable(_attributes(tables, baseline, s) for s in first.details)),
        fingerprints={name: table.fingerprint for name, table in tables.items()},
    )


def _check_paired(first: ScoreTable, other: ScoreTable, baseline: str, name: str) -> None:
    if len(first.prompts) != len(other.prompts):
        raise DataError(
            f"'{name}' has {len(other.prompts)} images and '{baseline}' {len(first.prompts)}; "
            "generate both from the same prompts"
        )
    for what in ("prompts", "seeds"):
        for i, (a, b) in enumerate(zip(getattr(first, what), getattr(other, what), strict=True)):
            if a != b:
                raise DataError(
                    f"'{name}' and '{baseline}' differ in {what}, first at image {i}: {b!r} and {a!r}; "
                    "generate both with the same prompts and seed"
                )
    if set(first.scores) != set(other.scores):
        raise DataError(
            f"'{name}' was scored by {', '.join(other.scores)} and '{baseline}' by {', '.join(first.scores)}; "
            "evaluate both with the same scorers"
        )


def _summaries(table: ScoreTable, seed: int) -> dict[str, Summary]:
    return {
        scorer: Summary(
            n=len(table.prompts), median=bootstrap_interval(table.rows(scorer), "median", seed=seed),
            mean=bootstrap_interval(table.rows(scorer), "mean", seed=seed),
        )
        for scorer in table.scores
    }


def _pairings(tables: Mapping[str, ScoreTable], baseline: str, seed: int) -> tuple[Pairing, ...]:
    """Every ordered pair under every scorer; those against the baseline with effect sizes and adjusted p values."""
    pairings = [
        Pairing(ours, theirs, scorer, win_rate(tables[ours].scores[scorer], tables[theirs].scores[scorer]))
        for ours, theirs in itertools.permutations(tables, 2) for scorer in tables[baseline].scores
    ]
    against = [p for p in pairings if p.theirs == baseline]
    adjusted = holm_adjusted([p.win_rate.p_value for p in against])
    completed = {
        id(p): dataclasses.replace(
            p, p_holm=p_holm, shift=_shift(tables[p.ours].rows(p.scorer), tables[baseline].rows(p.scorer), seed),
            median_difference=median_difference(
                tables[p.ours].rows(p.scorer), tables[baseline].rows(p.scorer), seed=seed
            ),
        )
        for p, p_holm in zip(against, adjusted, strict=True)
    }
    return tuple(completed.get(id(p), p) for p in pairings)


def _shift(ours: np.ndarray, theirs: np.ndarray, seed: int) -> Interval:
    spread = float(theirs.std(dtype=np.float64)) or 1.0  # a constant baseline has no scale of its own
    return bootstrap_interval((ours.astype(np.float64) - theirs) / spread, "mean", seed=seed)


def _over_optimisation(
    pairings: Sequence[Pairing], baseline: str, training_reward: str | None
) -> tuple[OverOptimisation, ...]:
    if training_reward is None:
        return ()
    found = []
    for reward in (p for p in pairings if p.theirs == baseline and p.scorer == training_reward):
        others = (p for p in pairings if (p.ours, p.theirs) == (reward.ours, baseline) and p is not reward)
        falling = tuple(p.scorer for p in others if p.verdict == "worse")
        rises = reward.win_rate.wins > reward.win_rate.losses
        found.append(OverOptimisation(reward.ours, training_reward, rises, falling))
    return tuple(found)


def _attributes(tables: Mapping[str, ScoreTable], baseline: str, scorer: str) -> list[AttributeChange]:
    """Accuracy of every attribute of one detailed scorer, for all sets."""
    names = list(dict.fromkeys(key for row in tables[baseline].details[scorer] for key in row))
    right = {
        model: {key: np.array([row[key] for row in table.details[scorer] if key in row]) for key in names}
        for model, table in tables.items()
    }
    changes = []
    for model, columns in right.items():
        p_values = [win_rate(columns[key], right[baseline][key]).p_value for key in names]
        adjusted = [None] * len(names) if model == baseline else holm_adjusted(p_values)
        changes += [
            AttributeChange(
                model, scorer, key, proportion_interval(int(columns[key].sum()), len(columns[key])),
                len(columns[key]), p_holm,
            )
            for key, p_holm in zip(names, adjusted, strict=True)
        ]
    return changes
