"""Win-rates, bootstrap, Holm: by hand, against scipy, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from smpo.evaluation.statistics import (
    bootstrap_interval,
    cliffs_delta,
    effective_size,
    few_groups,
    holm_adjusted,
    median_difference,
    median_images,
    share_interval,
    signed_rank_p,
    wilson_interval,
    win_rate,
)


def test_win_rate_by_hand() -> None:
    """6 wins, 2 losses, 2 ties of 10: p = (6 + 1) / 10.

    Wilson, p = 0.7, n = 10, z = 1.959964, z^2 = 3.841459: centre (0.7 + 0.192073) / 1.384146 = 0.644493, half width
    1.959964 sqrt(0.021 + 3.841459 / 400) / 1.384146 = 1.959964 * 0.174939 / 1.384146 = 0.247714.
    Sign test, 6 of 8: 2 (C(8,6) + C(8,7) + C(8,8)) / 256 = 2 * 37 / 256 = 0.2890625.
    """
    shown = win_rate([2, 2, 2, 2, 2, 2, 0, 0, 1, 1], [1] * 10)
    assert (shown.wins, shown.losses, shown.ties, shown.n) == (6, 2, 2, 10)
    assert (shown.prompts_won, shown.prompts_lost) == (6, 2)
    assert shown.rate == pytest.approx(0.7) and shown.share_won == 0.6
    assert shown.low == pytest.approx(0.644493 - 0.247714, abs=2e-6)
    assert shown.high == pytest.approx(0.644493 + 0.247714, abs=2e-6)
    assert shown.p_value == pytest.approx(0.2890625, abs=1e-12)


@pytest.mark.parametrize("shape", [(300,), (60, 5)])
def test_win_rate_is_antisymmetric_and_knows_no_order(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, size=(2, *shape))
    there, back = win_rate(a, b), win_rate(b, a)
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert (there.prompts_won, there.prompts_lost) == (back.prompts_lost, back.prompts_won)
    assert there.p_value == back.p_value
    assert [there.rate, there.low, there.high] == pytest.approx([1 - back.rate, 1 - back.high, 1 - back.low])
    order = rng.permutation(shape[0])
    again = win_rate(a[order], b[order])
    assert (again.prompts_won, again.low) == (there.prompts_won, pytest.approx(there.low))
    if len(shape) > 1:  # the images of a prompt have no order either
        assert win_rate(a[:, ::-1], b[:, ::-1]) == there
        flat = win_rate(a.ravel(), b.ravel(), groups=np.repeat(np.arange(60), 5))
        assert (flat.p_value, flat.low) == (there.p_value, pytest.approx(there.low))


@pytest.mark.parametrize(("n", "half_width"), [(200, 6.9), (1632, 2.4)])
def test_wilson_holds_the_published_half_widths_and_equals_scipy(n: int, half_width: float) -> None:
    """By scipy: at 50 % the half width is 6.9 points for n = 200 and 2.4 for n = 1,632."""
    bounds = wilson_interval(n // 2, n)
    assert 50 * (bounds.high - bounds.low) == pytest.approx(half_width, abs=0.05)
    for wins in (0, 3, n):
        reference = stats.binomtest(wins, n).proportion_ci(0.9, method="wilson")
        interval = wilson_interval(wins, n, level=0.9)
        assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_paper_claims_that_are_ties() -> None:
    """Win-rates that the paper prints: CLIP 50.5 % of 3,200 is [48.8, 52.2], 51.5 % of 1,632 is [49.1, 53.9]."""
    for share, n, low, high in ((0.505, 3200, 0.488, 0.522), (0.515, 1632, 0.491, 0.539)):
        bounds = wilson_interval(share * n, n)
        assert (bounds.low, bounds.high) == pytest.approx((low, high), abs=5e-4)


def test_copies_of_an_image_are_one_image() -> None:
    """Five equal images a prompt say what one says: interval, test and rate are those of one image a prompt."""
    a, b = np.random.default_rng(8).integers(0, 4, size=(2, 90))
    single, copied = win_rate(a, b), win_rate(*(np.repeat(x[:, None], 5, axis=1) for x in (a, b)))
    assert copied.wins == 5 * single.wins and copied.prompts_won == single.prompts_won
    assert (copied.rate, copied.p_value) == (pytest.approx(single.rate), single.p_value)
    decided = (a != b) * (1 + np.sign(a - b)) / 2 + (a == b) * (a % 2)  # without ties: exactly n effective images
    assert effective_size(np.repeat(decided[:, None], 5, axis=1)) == pytest.approx(90)
    assert effective_size(decided) == pytest.approx(90)


def test_effective_size_by_hand() -> None:
    """Rows (1,1), (1,0), (0,0), (1,0): p = 1/2, group residuals 1, 0, -1, 0, Var = 2/64, so 1/4 / (2/64) = 8 of 8.

    Rows (1,1), (0,0), (1,1), (1,0): p = 5/8, residuals 3/4, -5/4, 3/4, -1/4, squares 9/16 + 25/16 + 9/16 + 1/16 =
    44/16, Var = 44/16/64; 15/64 / (44/1024) = 240/44.
    """
    assert effective_size([[1, 1], [1, 0], [0, 0], [1, 0]]) == pytest.approx(8)
    assert effective_size([[1, 1], [0, 0], [1, 1], [1, 0]]) == pytest.approx(240 / 44)
    assert effective_size([[1, 1], [1, 1], [1, 1]]) == 3  # nothing varies: no more than the prompts
    assert effective_size([1, 1, 1, 1], [0, 0, 0, 1]) == pytest.approx(16 / 10)
    assert effective_size([0.5] * 6) == 6


def test_few_groups_by_hand_and_a_single_one() -> None:
    """Tables of Student's t: t_239 = 1.96994, t_59 = 2.00100 at 97.5 %; t_3 = 3.18245 and t_1 = 12.7062."""
    assert few_groups(240, 60) == pytest.approx((1.96994 / 2.00100) ** 2, rel=1e-5)
    assert few_groups(4, 2) == pytest.approx((3.18245 / 12.7062) ** 2, rel=1e-5)
    assert few_groups(90, 90) == few_groups(4, 1) == 1
    assert effective_size([[1, 0, 1, 0]]) == 1  # one prompt is one opinion
    won = np.random.default_rng(0).random((60, 4)) < 0.7
    size = effective_size(won) * few_groups(240, 60)
    assert share_interval(won) == wilson_interval(won.mean() * size, size)


def test_ties_and_lucky_groups_never_count_as_more_than_the_values() -> None:
    """Every prompt wins one image of two: nothing varies between prompts, and 6 values stay 6."""
    balanced = [[1, 0], [0, 1], [1, 0]]
    assert effective_size(balanced) == 6
    assert share_interval(balanced) == wilson_interval(3 * few_groups(6, 3), 6 * few_groups(6, 3))


COVERAGE = {  # p: (before the degrees of freedom, with them)
    0.5: (0.949, 0.952), 0.7: (0.947, 0.951), 0.9: (0.941, 0.947), 0.95: (0.915, 0.930), 0.97: (0.887, 0.927),
    0.98: (0.966, 0.967), 0.99: (0.959, 0.959),
}


@pytest.mark.slow
@pytest.mark.parametrize("p", COVERAGE)
def test_coverage_near_one(p: float) -> None:
    """60 prompts of four images, an intraclass correlation of 1/2 (Beta(p, 1 - p)): docs/evaluation.md's table."""
    rng, intervals = np.random.default_rng(0), []
    for _ in range(4000):
        won = rng.random((60, 4)) < rng.beta(p, 1 - p, size=(60, 1))
        size = effective_size(won)
        intervals.append((wilson_interval(won.mean() * size, size), share_interval(won)))
    covered = [np.mean([pair[way].low <= p <= pair[way].high for pair in intervals]) for way in (0, 1)]
    assert covered == pytest.approx(COVERAGE[p], abs=0.012)  # 0.35 to 0.5 points of standard error each


def test_intervals_cover_the_truth_with_correlated_images() -> None:
    """Prompts differ in how often they are won (Beta(1/2, 1/3), mean 0.6), five images each: nominal 95 %.

    Taking the images as independent would cover about 75 % of the time.
    """
    rng = np.random.default_rng(9)
    grouped, naive = [], []
    for _ in range(1000):
        won = rng.random((60, 5)) < rng.beta(1 / 2, 1 / 3, size=(60, 1))
        grouped.append(share_interval(won))
        naive.append(wilson_interval(int(won.sum()), 300))
    covered = [np.mean([b.low <= 0.6 <= b.high for b in intervals]) for intervals in (grouped, naive)]
    assert 0.93 <= covered[0] <= 0.97 and covered[1] < 0.80


def test_sign_test_keeps_its_level_with_correlated_images() -> None:
    """No difference between the models, but all images of a prompt go the same way most of the time."""
    rng = np.random.default_rng(10)
    p_values = []
    for _ in range(1000):
        tilt = rng.choice([-1.0, 1.0], size=(40, 1))
        p_values.append(win_rate(tilt + rng.normal(size=(40, 5)), np.zeros((40, 5))).p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.06


def test_signed_rank_by_hand_and_against_scipy() -> None:
    """Differences 1, 2, 3, 4, 5: all positive, exact two-sided p = 2 / 2^5."""
    assert signed_rank_p([1, 2, 3, 4, 5], [0] * 5) == pytest.approx(2 / 32)
    assert signed_rank_p([1.0, 2.0], [1.0, 2.0]) == 1.0
    rng = np.random.default_rng(11)
    a, b = rng.integers(0, 9, size=(2, 70, 3)).astype(float)
    expected = stats.wilcoxon(a.sum(axis=1), b.sum(axis=1), zero_method="pratt").pvalue
    assert signed_rank_p(a, b) == pytest.approx(expected)
    assert signed_rank_p(b, a) == pytest.approx(expected)


def test_cliffs_delta_counts_all_pairs() -> None:
    """(1, 2, 3) against (0, 2, 2): 1, 2 and 3 are above 1, 1 and 3 of them, 1 is below two: (5 - 2) / 9."""
    assert cliffs_delta([1, 2, 3], [0, 2, 2]) == pytest.approx(3 / 9)
    a, b = np.random.default_rng(12).integers(0, 6, size=(2, 50))
    assert cliffs_delta(a, b) == pytest.approx(np.sign(a[:, None] - b).mean()) == pytest.approx(-cliffs_delta(b, a))


def test_median_image_is_a_real_image() -> None:
    np.testing.assert_array_equal(median_images([[5, 1, 3], [2, 9, 4]]), [[3], [4]])
    np.testing.assert_array_equal(median_images([[5, 1, 3, 4]]), [[3]])  # the lower of 3 and 4
    np.testing.assert_array_equal(median_images([7.0, 8.0]), [[7], [8]])


def test_groups_must_name_every_score() -> None:
    with pytest.raises(ValueError, match="groups must name the prompt of each of 3 scores, got 2"):
        win_rate([1, 2, 3], [0, 0, 0], groups=[0, 1])


def test_only_ties_decide_nothing() -> None:
    shown = win_rate([1.0, 2.0], [1.0, 2.0])
    assert (shown.rate, shown.share_won, shown.p_value) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("function", [win_rate, median_difference, signed_rank_p])
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
    interval = bootstrap_interval(values, statistic, seed=3)
    reference = stats.bootstrap(
        (values,), getattr(np, statistic), n_resamples=10_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    assert interval.value == pytest.approx(getattr(np, statistic)(values))
    width = reference.high - reference.low
    assert interval.low == pytest.approx(reference.low, abs=0.05 * width)
    assert interval.high == pytest.approx(reference.high, abs=0.05 * width)


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
        intervals = [bootstrap_interval(s, statistic, resamples=500) for s in samples]
        coverage = np.mean([b.low <= truth <= b.high for b in intervals])
        assert 0.91 <= coverage <= 0.98


def test_wilson_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(5)
    covered = [b.low <= 0.6 <= b.high for b in (wilson_interval(int(k), 100) for k in rng.binomial(100, 0.6, 1000))]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_median_difference_uses_the_pairing() -> None:
    """A constant gain on very different prompts: paired, the interval has no width at all."""
    baseline = np.random.default_rng(6).normal(scale=50, size=101)
    shown = median_difference(baseline + 0.5, baseline)
    assert (shown.value, shown.low, shown.high) == pytest.approx((0.5, 0.5, 0.5))
    assert shown.excludes_zero
    assert not median_difference(baseline, baseline).excludes_zero


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
