"""Comparison of evaluated image sets: medians, means, paired win-rates, and signs of over-optimisation."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smpo.core.checks import check_known
from smpo.core.errors import DataError
from smpo.evaluation.attributes import AttributeChange, attribute_changes
from smpo.evaluation.categories import CategoryResult, by_category
from smpo.evaluation.implicit_accuracy import ImplicitAccuracy
from smpo.evaluation.indicators import Diversity, Drift
from smpo.evaluation.scores import ImageScores
from smpo.evaluation.statistics import (
    Interval,
    WinRate,
    bootstrap_interval,
    cliffs_delta,
    holm_adjusted,
    median_difference,
    median_images,
    signed_rank_p,
    verdict_of,
    win_rate,
)

PROTOCOLS = ("all", "median-image")
Rows = Mapping[str, Mapping[str, np.ndarray]]
"""Set -> scorer -> scores of shape (prompts, images)."""


@dataclass(frozen=True)
class Summary:
    """Scores of one set under one scorer: number of images, median and mean with their bootstrap intervals."""

    n: int
    median: Interval
    mean: Interval


@dataclass(frozen=True)
class Pairing:
    """One set of images against another one under one scorer, paired by prompt and seed.

    `p_holm` and everything after it is None unless `other` is the baseline.

    Attributes:
        model: name of the set.
        other: name of the set that it is compared with.
        scorer: name of the scorer.
        win_rate: of `model` over `other`.
        p_holm: p value of the sign test, adjusted over all sets and scorers of the comparison.
        median_difference: median(model) - median(other), in the scorer's units.
        mean_difference: mean(model) - mean(other), in the scorer's units.
        shift: mean difference in standard deviations of `other`, so that scorers share an axis.
        p_signed_rank: p value of Wilcoxon's signed-rank test, adjusted like `p_holm`.
        cliffs_delta: effect size of the two distributions, in [-1, 1].
    """

    model: str
    other: str
    scorer: str
    win_rate: WinRate
    p_holm: float | None = None
    median_difference: Interval | None = None
    mean_difference: Interval | None = None
    shift: Interval | None = None
    p_signed_rank: float | None = None
    cliffs_delta: float | None = None

    @property
    def verdict(self) -> str:
        """"better", "worse" or "undecided": the sign of the significant change against the baseline."""
        return verdict_of(self.win_rate, self.p_holm)


@dataclass(frozen=True)
class OverOptimisation:
    """Whether a model gained under the reward that it was trained on, and lost under other scorers.

    Attributes:
        model: name of the set.
        training_reward: the scorer that made the training labels.
        rises: whether the model wins more often than it loses under the training reward.
        falling: other scorers under which the model is significantly worse than the baseline.
    """

    model: str
    training_reward: str
    rises: bool
    falling: tuple[str, ...]

    @property
    def flagged(self) -> bool:
        """Whether the reward rises while another scorer falls."""
        return self.rises and bool(self.falling)


@dataclass(frozen=True)
class Comparison:
    """The comparison of evaluated image sets.

    Attributes:
        baseline: name of the set that the others are compared with.
        models: names of all sets, in the given order.
        num_prompts: prompts of each set.
        images_per_prompt: images of each prompt.
        protocol: "all" images of a prompt, or its "median-image" under each scorer.
        units: scorer -> unit of its scores.
        summaries: model -> scorer -> summary.
        pairings: every ordered pair of models under every scorer.
        over_optimisation: one entry per set but the baseline, where the training reward is known.
        attributes: accuracy of each attribute, for scorers that judge attributes.
        categories: results by category of the prompts, where the prompts have categories.
        fingerprints: model -> fingerprint of its evaluation.
        drifts: changes of how the images look, where that was measured.
        diversity: diversity of every set, where that was measured.
        implicit: implicit preference accuracy of models on held-out pairs, where such pairs are given.
    """

    baseline: str
    models: tuple[str, ...]
    num_prompts: int
    images_per_prompt: int
    protocol: str
    units: Mapping[str, str]
    summaries: Mapping[str, Mapping[str, Summary]]
    pairings: tuple[Pairing, ...]
    over_optimisation: tuple[OverOptimisation, ...]
    attributes: tuple[AttributeChange, ...]
    categories: tuple[CategoryResult, ...]
    fingerprints: Mapping[str, str]
    drifts: tuple[Drift, ...] = ()
    diversity: tuple[Diversity, ...] = ()
    implicit: tuple[ImplicitAccuracy, ...] = ()

    def pairing(self, model: str, scorer: str, other: str | None = None) -> Pairing:
        """`model` against `other`, or else the baseline, under `scorer`."""
        key = (model, other or self.baseline, scorer)
        return next(p for p in self.pairings if (p.model, p.other, p.scorer) == key)

    def to_json(self) -> str:
        """The comparison as JSON text, with the verdicts written out."""
        content = dataclasses.asdict(self)
        for key in ("pairings", "categories"):
            for fields, result in zip(content[key], getattr(self, key), strict=True):
                fields["verdict"] = result.verdict
        for fields, entry in zip(content["over_optimisation"], self.over_optimisation, strict=True):
            fields["flagged"] = entry.flagged
        return json.dumps(content, indent=1) + "\n"


def compare(
    sets: Mapping[str, Path], baseline: str, *, training_reward: str | None = None, protocol: str = "all",
    categories: Sequence[str] = (), seed: int = 0,
) -> Comparison:
    """The comparison of two or more evaluations of the same prompts and seeds.

    Args:
        sets: model name -> folder of its evaluation.
        baseline: one of the names.
        training_reward: scorer that made the training labels, for the over-optimisation check.
        protocol: with "all", all images of a prompt count; with "median-image" (Diffusion-KTO), only the image with the
            median score under each scorer does.
        categories: category of each image, for results by category; see `image_sets.categories_of`.
        seed: seed of the bootstrap.

    Raises:
        ConfigError: the baseline, the training reward or the protocol is unknown.
        DataError: the sets differ in prompts, seeds or scorers, an evaluation is incomplete, or `categories` and images
            differ in number.
    """
    check_known(baseline, sets, what="baseline")
    check_known(protocol, PROTOCOLS, what="protocol")
    tables = {name: ImageScores.open(folder) for name, folder in sets.items()}
    first = tables[baseline]
    for name, table in tables.items():
        _check_paired(first, table, baseline, name)
    if training_reward is not None:
        check_known(training_reward, first.scores, what="training reward")
    rows = {name: _rows_of(table, protocol) for name, table in tables.items()}
    pairings = _pairings(rows, baseline, seed)
    return Comparison(
        baseline=baseline, models=tuple(tables), num_prompts=len(first.prompts) // first.images_per_prompt,
        images_per_prompt=first.images_per_prompt, protocol=protocol, units=dict(first.units),
        summaries={name: _summaries(rows[name], seed) for name in tables},
        pairings=pairings, over_optimisation=_over_optimisation(pairings, baseline, training_reward),
        attributes=tuple(itertools.chain.from_iterable(attribute_changes(tables, baseline, s) for s in first.details)),
        categories=by_category(rows, baseline, _of_prompts(categories, first), seed=seed) if categories else (),
        fingerprints={name: table.fingerprint for name, table in tables.items()},
    )


def _rows_of(table: ImageScores, protocol: str) -> dict[str, np.ndarray]:
    reduced = median_images if protocol == "median-image" else np.asarray
    return {scorer: reduced(table.rows(scorer)) for scorer in table.scores}


def _of_prompts(categories: Sequence[str], table: ImageScores) -> Sequence[str]:
    """The category of each prompt, from those of its images."""
    if len(categories) != len(table.prompts):
        raise DataError(f"got {len(categories)} categories for {len(table.prompts)} images; give each image one")
    return categories[:: table.images_per_prompt]


def _check_paired(first: ImageScores, other: ImageScores, baseline: str, name: str) -> None:
    if len(first.prompts) != len(other.prompts):
        raise DataError(
            f"'{name}' has {len(other.prompts)} images and '{baseline}' {len(first.prompts)}; "
            "generate both from the same prompts"
        )
    for column in ("prompts", "seeds"):
        for i, (a, b) in enumerate(zip(getattr(first, column), getattr(other, column), strict=True)):
            if a != b:
                raise DataError(
                    f"'{name}' and '{baseline}' differ in {column}, first at image {i}: {b!r} and {a!r}; "
                    "generate both with the same prompts and seed"
                )
    if set(first.scores) != set(other.scores):
        raise DataError(
            f"'{name}' was scored by {', '.join(other.scores)} and '{baseline}' by {', '.join(first.scores)}; "
            "evaluate both with the same scorers"
        )


def _summaries(rows: Mapping[str, np.ndarray], seed: int) -> dict[str, Summary]:
    return {
        scorer: Summary(
            n=scores.size, median=bootstrap_interval(scores, "median", seed=seed),
            mean=bootstrap_interval(scores, "mean", seed=seed),
        )
        for scorer, scores in rows.items()
    }


def _pairings(rows: Rows, baseline: str, seed: int) -> tuple[Pairing, ...]:
    """Every ordered pair under every scorer; those against the baseline with effect sizes and adjusted p values."""
    pairings = [
        Pairing(model, other, scorer, win_rate(rows[model][scorer], rows[other][scorer]))
        for model, other in itertools.permutations(rows, 2) for scorer in rows[baseline]
    ]
    against = [p for p in pairings if p.other == baseline]
    scores = [(rows[p.model][p.scorer].astype(np.float64), rows[baseline][p.scorer]) for p in against]
    signs = holm_adjusted([p.win_rate.p_value for p in against])
    ranks = holm_adjusted([signed_rank_p(*both) for both in scores])
    completed = {
        id(p): dataclasses.replace(
            p, p_holm=sign, p_signed_rank=rank, cliffs_delta=cliffs_delta(own, base),
            median_difference=median_difference(own, base, seed=seed),
            mean_difference=bootstrap_interval(own - base, "mean", seed=seed), shift=_shift(own, base, seed),
        )
        for p, (own, base), sign, rank in zip(against, scores, signs, ranks, strict=True)
    }
    return tuple(completed.get(id(p), p) for p in pairings)


def _shift(own: np.ndarray, base: np.ndarray, seed: int) -> Interval:
    deviation = float(base.std(dtype=np.float64)) or 1.0  # a constant baseline has no scale of its own
    return bootstrap_interval((own - base) / deviation, "mean", seed=seed)


def _over_optimisation(
    pairings: Sequence[Pairing], baseline: str, training_reward: str | None
) -> tuple[OverOptimisation, ...]:
    if training_reward is None:
        return ()
    entries = []
    for reward in (p for p in pairings if p.other == baseline and p.scorer == training_reward):
        others = (p for p in pairings if (p.model, p.other) == (reward.model, baseline) and p is not reward)
        falling = tuple(p.scorer for p in others if p.verdict == "worse")
        rises = reward.win_rate.wins > reward.win_rate.losses
        entries.append(OverOptimisation(reward.model, training_reward, rises, falling))
    return tuple(entries)
