"""Win-rates, bootstrap, Holm: by hand, against scipy, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from smpo.evaluation.statistics import (
    bootstrap_interval,
    holm_adjusted,
    median_difference,
    proportion_interval,
    win_rate,
)


def test_win_rate_by_hand() -> None:
    """6 wins, 2 losses, 2 ties of 10.

    Wilson, p = 0.6, n = 10, z = 1.959964, z^2 = 3.841459: centre (0.6 + 0.192073) / 1.384146 = 0.572246, half width
    1.959964 sqrt(0.024 + 3.841459 / 400) / 1.384146 = 1.959964 * 0.183314 / 1.384146 = 0.259573.
    Sign test, 6 of 8: 2 (C(8,6) + C(8,7) + C(8,8)) / 256 = 2 * 37 / 256 = 0.2890625.
    """
    shown = win_rate([2, 2, 2, 2, 2, 2, 0, 0, 1, 1], [1] * 10)
    assert (shown.wins, shown.losses, shown.ties, shown.n) == (6, 2, 2, 10)
    assert shown.rate == 0.6 and shown.rate_half_ties == 0.7
    assert shown.low == pytest.approx(0.572246 - 0.259573, abs=2e-6)
    assert shown.high == pytest.approx(0.572246 + 0.259573, abs=2e-6)
    assert shown.p_value == pytest.approx(0.2890625, abs=1e-12)


def test_win_rate_is_antisymmetric_and_holds_the_published_half_widths() -> None:
    """REWARDS.md 9.3: at 50 % the half width is 6.9 points for n = 200 and 2.4 for n = 1,632."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, size=(2, 300))
    there, back = win_rate(a, b), win_rate(b, a)
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert there.p_value == back.p_value
    assert there.rate_half_ties + back.rate_half_ties == pytest.approx(1)
    for n, half_width in ((200, 6.9), (1632, 2.4)):
        bounds = proportion_interval(n // 2, n)
        assert 50 * (bounds.high - bounds.low) == pytest.approx(half_width, abs=0.05)


def test_only_ties_decide_nothing() -> None:
    shown = win_rate([1.0, 2.0], [1.0, 2.0])
    assert (shown.rate, shown.rate_half_ties, shown.p_value) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize("function", [win_rate, median_difference])
def test_unpaired_or_unusable_scores_are_refused(function) -> None:
    with pytest.raises(ValueError, match=r"must have one shape, got \(2,.*; pair them by prompt"):
        function([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="scores must be finite and at least one, got 2 of them"):
        function([1, np.nan], [1, 2])
    with pytest.raises(ValueError, match="got 0 of them"):
        function([], [])


def test_unknown_statistic_is_refused() -> None:
    with pytest.raises(ValueError, match="statistic must be 'median' or 'mean', got 'mode'"):
        bootstrap_interval([1.0], "mode")


@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_bootstrap_agrees_with_scipy(statistic: str) -> None:
    values = np.random.default_rng(1).gamma(2.0, size=150)
    ours = bootstrap_interval(values, statistic, seed=3)
    theirs = stats.bootstrap(
        (values,), getattr(np, statistic), n_resamples=10_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    assert ours.value == pytest.approx(getattr(np, statistic)(values))
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_median_bounds_are_the_binomial_order_statistics() -> None:
    """Of n = 9 the bootstrap median is <= the j-th smallest with probability P(Bin(9, j/9) >= 5).

    j = 1: 0.0012, j = 2: 0.0300; so the 2.5 % quantile is the 2nd smallest, by symmetry the 97.5 % one the 8th.
    """
    bounds = bootstrap_interval(np.arange(1.0, 10.0))
    assert (bounds.value, bounds.low, bounds.high) == (5.0, 2.0, 8.0)


def test_bootstrap_is_deterministic_and_its_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=64)
    first = bootstrap_interval(values, seed=5)
    assert first == bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)
    monkeypatch.setattr("smpo.evaluation.statistics.DRAWS_AT_ONCE", 6400)
    assert first == bootstrap_interval(values, seed=5)


def test_images_of_a_prompt_are_resampled_together() -> None:
    """Four copies of every value carry no more information than one: the interval stays as wide."""
    values = np.random.default_rng(3).normal(size=80)
    single = bootstrap_interval(values, "mean")
    copied = bootstrap_interval(np.repeat(values[:, None], 4, axis=1), "mean")
    flat = bootstrap_interval(np.repeat(values, 4), "mean")
    assert copied.high - copied.low == pytest.approx(single.high - single.low, rel=0.01)
    assert flat.high - flat.low == pytest.approx((single.high - single.low) / 2, rel=0.05)


def test_bootstrap_intervals_cover_the_truth() -> None:
    """400 samples of 60: nominal 95 %, binomial standard error 1.1 points; the percentile bootstrap is a bit narrow."""
    rng = np.random.default_rng(4)
    for statistic, truth in (("mean", 1.0), ("median", np.log(2))):
        samples = rng.exponential(size=(400, 60))
        found = [bootstrap_interval(s, statistic, resamples=500) for s in samples]
        coverage = np.mean([b.low <= truth <= b.high for b in found])
        assert 0.91 <= coverage <= 0.98


def test_wilson_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(5)
    covered = [b.low <= 0.6 <= b.high for b in (proportion_interval(int(k), 100) for k in rng.binomial(100, 0.6, 1000))]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_median_difference_uses_the_pairing() -> None:
    """A constant gain on very different prompts: paired, the interval has no width at all."""
    theirs = np.random.default_rng(6).normal(scale=50, size=101)
    shown = median_difference(theirs + 0.5, theirs)
    assert (shown.value, shown.low, shown.high) == pytest.approx((0.5, 0.5, 0.5))
    assert shown.excludes_zero
    assert not median_difference(theirs, theirs).excludes_zero


def test_median_difference_is_that_of_the_medians() -> None:
    """medians 2 and 3; the median of the differences (4, -2, -2) would be -2."""
    assert median_difference([5, 1, 2], [1, 3, 4]).value == -1


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5, and the third is raised to the second."""
    assert holm_adjusted([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm_adjusted([0.9, 0.8]) == [1.0, 1.0]
    assert holm_adjusted([]) == []


def test_holm_keeps_the_family_error_rate() -> None:
    """2,000 families of 5 true null hypotheses: at most 5 % (+ 3 standard errors) have a rejection."""
    p_values = np.random.default_rng(7).random((2000, 5))
    rejected = np.mean([min(holm_adjusted(list(family))) < 0.05 for family in p_values])
    assert 0.03 < rejected < 0.065
