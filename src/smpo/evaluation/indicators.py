"""Signs of over-optimisation that need no reward model: images look different, or are less diverse."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist, squareform

from smpo.evaluation.appearance import THUMBNAIL_SIDE, Appearance
from smpo.evaluation.statistics import Interval, bootstrap_interval, holm_adjusted, percentile_interval, signed_rank_p

SPREAD_PROMPTS = 1500  # largest number of prompts that are compared with each other; of more, evenly chosen ones
SPREAD_RESAMPLES = 2000


@dataclass(frozen=True)
class Drift:
    """Change of one measure of appearance against the baseline.

    Attributes:
        model: name of the set.
        measure: a name in `appearance.MEASURES`.
        mean: mean of the set, in CIELAB units.
        baseline_mean: mean of the baseline.
        shift: mean difference in standard deviations of the baseline, with its paired bootstrap interval.
        p_holm: p value of Wilcoxon's signed-rank test, adjusted over all sets and measures.
    """

    model: str
    measure: str
    mean: float
    baseline_mean: float
    shift: Interval
    p_holm: float


@dataclass(frozen=True)
class Diversity:
    """How different a set's images are, as root mean square CIE76 difference of 16 x 16 thumbnails.

    Attributes:
        model: name of the set, which may be the baseline.
        within: mean distance of two images of one prompt; None where prompts have one image.
        within_change: `within` minus the baseline's, paired by prompt; None for the baseline.
        spread: mean distance of the first images of two prompts.
        spread_change: `spread` minus the baseline's; None for the baseline.
    """

    model: str
    within: Interval | None
    within_change: Interval | None
    spread: Interval
    spread_change: Interval | None


def drifts(looks: Mapping[str, Appearance], baseline: str, *, seed: int = 0) -> tuple[Drift, ...]:
    """Drift of every set but the baseline under every measure; the sets are paired by prompt and seed."""
    cells = []
    for model, look in looks.items():
        for name, base in looks[baseline].measures.items():
            if model != baseline:
                rows = (-1, look.images_per_prompt)
                cells.append((model, name, look.measures[name].reshape(rows), base.reshape(rows)))
    adjusted = holm_adjusted([signed_rank_p(own, base) for *_, own, base in cells])
    return tuple(
        Drift(
            model, name, float(own.mean()), float(base.mean()),
            bootstrap_interval((own - base) / (float(base.std()) or 1.0), "mean", seed=seed), p_holm,
        )
        for (model, name, own, base), p_holm in zip(cells, adjusted, strict=True)
    )


def diversity(looks: Mapping[str, Appearance], baseline: str, *, seed: int = 0) -> tuple[Diversity, ...]:
    """Diversity of every set, the baseline first."""
    within = {name: within_distances(look) for name, look in looks.items()}
    between = {name: between_distances(look) for name, look in looks.items()}
    draws = _spread_draws(between, seed)
    results = []
    for name in sorted(looks, key=lambda name: name != baseline):
        own, base, is_base = within[name], within[baseline], name == baseline
        spread = _spread(between[name])
        change = spread - _spread(between[baseline])
        results.append(Diversity(
            name,
            within=None if own is None else bootstrap_interval(own, "mean", seed=seed),
            within_change=None if own is None or base is None or is_base else bootstrap_interval(
                own - base, "mean", seed=seed
            ),
            spread=percentile_interval(spread, draws[name]),
            spread_change=None if is_base else percentile_interval(change, draws[name] - draws[baseline]),
        ))
    return tuple(results)


def within_distances(look: Appearance) -> np.ndarray | None:
    """Mean distance of two images of each prompt, shape (prompts,); None where prompts have one image."""
    if look.images_per_prompt < 2:
        return None
    rows = look.thumbnails.reshape(-1, look.images_per_prompt, look.thumbnails.shape[1])
    return np.array([pdist(images).mean() for images in rows]) / THUMBNAIL_SIDE


def between_distances(look: Appearance) -> np.ndarray:
    """Distance of the first images of all pairs of prompts, shape (m, m), m at most SPREAD_PROMPTS."""
    first = look.thumbnails[:: look.images_per_prompt]
    chosen = np.unique(np.linspace(0, len(first) - 1, min(len(first), SPREAD_PROMPTS)).round().astype(int))
    return squareform(pdist(first[chosen])) / THUMBNAIL_SIDE


def _spread(distances: np.ndarray) -> float:
    """Mean over all pairs of different prompts; 0 for a single one."""
    pairs = len(distances) * (len(distances) - 1)
    return float(distances.sum() / pairs) if pairs else 0.0


def _spread_draws(between: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Bootstrap of each set's spread, shape (SPREAD_RESAMPLES,); all sets use the same resampled prompts.

    A resample with multiplicities w has the spread sum_{i != j} w_i w_j d_ij / sum_{i != j} w_i w_j, so that no prompt
    is compared with its own copies.
    """
    n = len(next(iter(between.values())))
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=SPREAD_RESAMPLES).astype(np.float64)
    pairs = np.maximum(n**2 - np.square(weights).sum(axis=1), 1.0)
    return {name: ((weights @ distances) * weights).sum(axis=1) / pairs for name, distances in between.items()}
