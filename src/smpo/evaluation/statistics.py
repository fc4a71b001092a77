"""Statistics of paired scores: win-rates, bootstrap intervals, rank and sign tests, effect sizes, Holm's correction.

Every function is pure: it takes arrays and a seed. Prompts are the independent units. Where a prompt has several
images, its scores form one row of shape (k,). The bootstrap resamples whole rows, Wilson intervals count effective
images, and the tests use one value per prompt. So images of one prompt never count as independent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

Statistic = Literal["median", "mean"]
SIGNIFICANCE = 0.05  # of Holm-adjusted p values
RESAMPLES = 10_000  # keeps the Monte Carlo error of a 95 % bound near 1 % of the interval's width
DRAWS_AT_ONCE = 2_000_000  # indices per block, 16 MB


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its interval, in the unit of the values."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values with its 95 % interval by Student's t; of one value it has zero width."""
    n, mean = len(values), float(np.mean(values))
    around = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return Interval(mean, mean - around, mean + around)


@dataclass(frozen=True)
class WinRate:
    """Scores of a model against those of a baseline, paired image by image.

    Attributes:
        wins: images that the model scores higher on.
        losses: images that the baseline scores higher on.
        ties: images with equal scores.
        prompts_won: prompts of which more images win than lose; `wins` where a prompt has one image.
        prompts_lost: prompts of which more images lose than win.
        rate: (wins + ties / 2) / n, in [0, 1]; 1 - rate is the win-rate of the baseline.
        low: lower Wilson bound of `rate`, over the effective number of images (see `share_interval`).
        high: upper Wilson bound of `rate`.
        p_value: two-sided exact sign test of prompts won against prompts lost; 1 when there are neither.
    """

    wins: int
    losses: int
    ties: int
    prompts_won: int
    prompts_lost: int
    rate: float
    low: float
    high: float
    p_value: float

    @property
    def n(self) -> int:
        """Number of pairs of images."""
        return self.wins + self.losses + self.ties

    @property
    def share_won(self) -> float:
        """wins / n, in [0, 1]: a tie is no win."""
        return self.wins / self.n


def win_rate(
    model: ArrayLike, baseline: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95
) -> WinRate:
    """The share of image pairs that the model wins, ties counting half, its Wilson interval and the exact sign test.

    Args:
        model: its scores, shape (n,), or (n, k) for k images of each of n prompts.
        baseline: its scores of the same prompts and seeds, same shape.
        groups: prompt of each score, same shape, where prompts have different numbers of images; by default the first
            axis.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: shapes differ, there is no pair, or a score is not finite.
    """
    a, b = _paired(model, baseline)
    signs = np.sign(a - b)
    units = _groups(signs, groups)
    bounds = share_interval((1 + signs) / 2, units, level=level)
    balance = np.bincount(units, weights=signs.ravel())
    won, lost = int((balance > 0).sum()), int((balance < 0).sum())
    p_value = float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    wins, losses = int((signs > 0).sum()), int((signs < 0).sum())
    return WinRate(
        wins, losses, a.size - wins - losses, won, lost, rate=bounds.value, low=bounds.low, high=bounds.high,
        p_value=p_value,
    )


def verdict_of(won: WinRate, p_adjusted: float | None) -> str:
    """"better", "worse" or "undecided": the sign of a significant change. Without a test the verdict is "undecided"."""
    if p_adjusted is None or p_adjusted >= SIGNIFICANCE:
        return "undecided"
    return "better" if won.prompts_won > won.prompts_lost else "worse"


def share_interval(values: ArrayLike, groups: ArrayLike | None = None, *, level: float = 0.95) -> Interval:
    """The mean of `values` in [0, 1] with its Wilson interval over the effective number of values.

    The effective number is `effective_size` times `few_groups`, and at most the number of values (Korn & Graubard 1998;
    they use Clopper and Pearson's interval, which at p = .97 is 7 % wider and covers .95 instead of .93; see
    docs/evaluation.md).

    Args:
        values: 1 for a success, 0 for a failure, 1/2 for a tie; shape (n,) or (n, k) as in `win_rate`.
        groups: independent unit of each value, same shape; by default the first axis.
        level: coverage of the interval, in (0, 1).
    """
    array = _finite(values)
    num_groups = int(_groups(array, groups).max()) + 1
    size = min(effective_size(array, groups) * few_groups(array.size, num_groups, level=level), float(array.size))
    return wilson_interval(float(array.mean()) * size, size, level=level)


def effective_size(values: ArrayLike, groups: ArrayLike | None = None) -> float:
    """How many independent values in [0, 1] estimate the mean as precisely as these (Korn & Graubard 1998).

    It is p (1 - p) / Var(p), where Var is the variance of the mean between groups. For n prompts with one image each it
    is n. For k equal copies of each image it is n, too. For k unrelated images of each prompt it is n k. It never
    exceeds the number of values, so that ties do not narrow an interval. Where p is 0 or 1, nothing varies, and it is
    the effective number of groups, (sum m)^2 / sum m^2. A single group counts as one value, for it shows no variance
    between groups.
    """
    array = _finite(values).ravel()
    units = _groups(np.asarray(values), groups)
    sizes = np.bincount(units)
    p = array.mean()
    if p in (0.0, 1.0) or len(sizes) == 1:
        return array.size**2 / float(np.square(sizes).sum())
    variance = np.square(np.bincount(units, weights=array - p)).sum() / array.size**2
    return min(float(p * (1 - p) / variance), float(array.size)) if variance > 0 else float(array.size)


def few_groups(num_values: int, num_groups: int, *, level: float = 0.95) -> float:
    """(t_(n - 1) / t_(g - 1))^2 with quantiles of Student's t: the correction for g groups, in (0, 1].

    Korn & Graubard (1998) multiply the effective number of values by it, because the variance between groups has only
    g - 1 degrees of freedom. It is 1 where every value is a group of its own, and for a single group.
    """
    if num_groups in (1, num_values):
        return 1.0
    upper = (1 + level) / 2
    return float((stats.t.ppf(upper, num_values - 1) / stats.t.ppf(upper, num_groups - 1)) ** 2)


def wilson_interval(successes: float, n: float, *, level: float = 0.95) -> Interval:
    """successes / n with its Wilson interval; both may be fractional, which scipy's binomtest does not allow."""
    z = float(stats.norm.ppf((1 + level) / 2))
    p, shrink = successes / n, 1 + z**2 / n
    centre = (p + z**2 / (2 * n)) / shrink
    half_width = z / shrink * float(np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)))
    return Interval(p, max(0.0, centre - half_width), min(1.0, centre + half_width))


def signed_rank_p(model: ArrayLike, baseline: ArrayLike) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test on each prompt's total difference, zeros ranked (Pratt).

    Args:
        model: shape (n,) or (n, k), as in `win_rate`.
        baseline: scores of the same prompts and seeds, same shape.
    """
    a, b = _paired(model, baseline)
    differences = (a - b).reshape(len(a), -1).sum(axis=1)  # not the mean, whose rounding could break ties
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue) if differences.any() else 1.0


def cliffs_delta(model: ArrayLike, baseline: ArrayLike) -> float:
    """P(model > baseline) - P(model < baseline) of two random images, prompts ignored, in [-1, 1] (Cliff 1993).

    It compares the two distributions, so it is small where prompts differ more than models do. The paired counterpart
    is 2 rate - 1 of `win_rate`.
    """
    a, b = _finite(model).ravel(), _finite(baseline).ravel()
    return float(2 * stats.mannwhitneyu(a, b, method="asymptotic").statistic / (a.size * b.size) - 1)


def median_images(rows: ArrayLike) -> np.ndarray:
    """Score of each prompt's median image, shape (n, 1), as in the protocol of Diffusion-KTO.

    Args:
        rows: shape (n, k). Of an even number of images the lower middle one counts, so that the score is an image's.
    """
    array = _rows(rows)
    return np.sort(array, axis=1)[:, [(array.shape[1] - 1) // 2]]


def bootstrap_interval(
    values: ArrayLike, statistic: Statistic = "median", *, seed: int = 0, level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """The median or mean of `values` with its percentile bootstrap interval.

    Args:
        values: shape (n,), or (n, k) for k images of each of n prompts; rows are resampled.
        statistic: "median" or "mean", over all values.
        seed: of the resampling; equal seeds give equal bounds.
        level: coverage of the interval, in (0, 1).
        resamples: number of bootstrap samples.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    rows = _rows(values)
    draws = np.concatenate(
        [_estimate(rows[index], statistic) for index in _resampled(len(rows), rows.shape[1], seed, resamples)]
    )
    return percentile_interval(float(_estimate(rows[None], statistic)[0]), draws, level)


def median_difference(
    model: ArrayLike, baseline: ArrayLike, *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """median(model) - median(baseline) with its paired percentile bootstrap interval: both use the same resampled rows.

    It is the difference of the two medians that a table shows, not the median of the differences.

    Args:
        model: shape (n,) or (n, k), as in `bootstrap_interval`.
        baseline: scores of the same prompts and seeds, same shape.
        seed: of the resampling.
        level: coverage of the interval, in (0, 1).
        resamples: number of bootstrap samples.

    Raises:
        ValueError: shapes differ, there are no values, or one is not finite.
    """
    a, b = (_rows(values) for values in _paired(model, baseline))
    draws = np.concatenate([
        _estimate(a[index], "median") - _estimate(b[index], "median")
        for index in _resampled(len(a), a.shape[1], seed, resamples)
    ])
    return percentile_interval(float(np.median(a) - np.median(b)), draws, level)


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for their number (Holm 1979), in the given order.

    The i-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= i, cut at 1.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[int(i)] = highest
    return adjusted


def _finite(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"scores must be finite and at least one, got {array.size} of them; check the score table")
    return array


def _paired(model: ArrayLike, baseline: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = _finite(model), _finite(baseline)
    if a.shape != b.shape:
        raise ValueError(f"model and baseline must have one shape, got {a.shape} and {b.shape}; pair them by prompt")
    return a, b


def _groups(values: np.ndarray, groups: ArrayLike | None) -> np.ndarray:
    """Index of each value's group, flat, from 0 without gaps."""
    if groups is None:
        return np.repeat(np.arange(len(values)), values[0].size)
    given = np.asarray(groups).ravel()
    if given.size != values.size:
        raise ValueError(f"groups must name the prompt of each of {values.size} scores, got {given.size}")
    return np.unique(given, return_inverse=True)[1]


def _rows(values: ArrayLike) -> np.ndarray:
    array = _finite(values)
    return array.reshape(len(array), -1)  # (n, k)


def _resampled(n: int, k: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Row indices of all resamples, in blocks of shape (b, n); a row holds all images of a prompt."""
    rng = np.random.default_rng(seed)
    block = max(1, DRAWS_AT_ONCE // (n * k))
    return (rng.integers(n, size=(min(block, resamples - start), n)) for start in range(0, resamples, block))


def _estimate(samples: np.ndarray, statistic: Statistic) -> np.ndarray:
    """(b, n, k) -> (b,)."""
    if statistic not in ("median", "mean"):
        raise ValueError(f"statistic must be 'median' or 'mean', got {statistic!r}")
    return np.median(samples, axis=(1, 2)) if statistic == "median" else samples.mean(axis=(1, 2))


def percentile_interval(value: float, draws: np.ndarray, level: float = 0.95) -> Interval:
    """`value` with the percentile interval of its bootstrap `draws`, shape (resamples,)."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
