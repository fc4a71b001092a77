"""Scales fitted to people's choices: hand-worked, against another optimiser, and over many draws of a known scale."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from smpo.core.errors import DataError
from smpo.preparation.calibration import CalibrationBin, calibration, fit_scale


def drawn(scale: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaps of scores and the choices that one person a pair makes by Bradley-Terry."""
    rng = np.random.default_rng(seed)
    gaps = rng.normal(0, 0.02, n)
    return gaps, (rng.random(n) < 1 / (1 + np.exp(-gaps / scale))).astype(float)


def test_one_gap_by_hand():
    """Image 0 is 2 better and wins 3 of 4: sigmoid(2 / s) = 3/4, s = 2 / ln 3.

    The variance of 1/s is 1 / (n g^2 p (1 - p)) = 1 / (4 * 4 * 3/16) = 1/3; times s^2 it is the error of s.
    """
    fit = fit_scale(np.full(4, 2.0), np.array([1.0, 1.0, 1.0, 0.0]))
    assert fit.scale == pytest.approx(2 / math.log(3), rel=1e-9) and fit.pairs == 4
    assert fit.standard_error == pytest.approx(math.sqrt(1 / 3) * fit.scale**2, rel=1e-9)


def test_equals_another_optimiser():
    gaps, people = drawn(0.03, 500, seed=0)

    def loss(log_scale: float) -> float:
        x = torch.tensor(gaps / math.exp(log_scale))
        return torch.nn.functional.binary_cross_entropy_with_logits(x, torch.tensor(people)).item()

    minimum = minimize_scalar(loss, bounds=(-6, 0), method="bounded", options={"xatol": 1e-10})
    assert fit_scale(gaps, people).scale == pytest.approx(math.exp(minimum.x), rel=1e-5)


@pytest.mark.parametrize("votes", [1, 5])
def test_a_known_scale_and_its_error_are_recovered(votes: int):
    """Over 200 data sets the mean is right to 3 standard errors of it, and the scatter is the reported error."""
    fits = []
    for seed in range(200):
        gaps, _ = drawn(0.03, 400, seed)
        shares = np.random.default_rng(seed).binomial(votes, 1 / (1 + np.exp(-gaps / 0.03))) / votes
        fits.append(fit_scale(gaps, shares))
    slopes = 1 / np.array([fit.scale for fit in fits])
    errors = np.array([fit.standard_error for fit in fits]) * slopes**2
    assert slopes.mean() == pytest.approx(1 / 0.03, abs=4 * slopes.std() / math.sqrt(200))
    assert slopes.std() == pytest.approx(errors.mean(), rel=0.15)


def test_units_and_sides_do_not_matter_and_four_times_the_pairs_halve_the_error():
    gaps, people = drawn(0.03, 300, seed=1)
    fit = fit_scale(gaps, people)
    assert fit_scale(1e6 * gaps, people).scale == pytest.approx(1e6 * fit.scale, rel=1e-9)
    assert fit_scale(-gaps, 1 - people).scale == pytest.approx(fit.scale, rel=1e-9)
    twice = fit_scale(np.tile(gaps, 4), np.tile(people, 4))
    assert twice.scale == pytest.approx(fit.scale, rel=1e-9)
    assert twice.standard_error == pytest.approx(fit.standard_error / 2, rel=1e-9)


def test_pairs_that_nobody_judged_and_equal_scores_tell_nothing():
    gaps, people = drawn(0.03, 50, seed=2)
    more = np.concatenate([gaps, [0.0, 5.0]]), np.concatenate([people, [1.0, math.nan]])
    assert fit_scale(*more) == fit_scale(gaps, people)


NOBODY = ("no pair has a human label or votes and unequal scores; give labels.scale (0.01 for PickScore's cosines) or "
          "a source with label_0 or vote_share_0")
CHANCE = ("on {} pairs the scores agree with people no more than chance would; use labels from people (hard, votes), "
          "or another scorer")
SEPARABLE = ("the scores agree with people on all 2 pairs, so that any smaller scale fits better; give labels.scale, "
             "or more pairs")


@pytest.mark.parametrize(("gaps", "people", "message"), [
    ([0.1, 0.2], [math.nan, math.nan], NOBODY), ([0.0], [1.0], NOBODY), ([0.1, -0.2], [1.0, 0.0], SEPARABLE),
    ([0.1, -0.2, 0.1], [0.0, 1.0, 0.5], CHANCE.format(3)), ([0.1, 0.1], [0.0, 1.0], CHANCE.format(2)),
])
def test_what_fits_no_scale_is_one_line(gaps: list[float], people: list[float], message: str):
    with pytest.raises(DataError) as caught:
        fit_scale(np.array(gaps), np.array(people))
    assert str(caught.value) == f"labels.scale cannot be fitted: {message}"


def test_calibration_by_hand():
    """Ascending p 0.5 .. 0.95 in ten bins of one; of pair 3 (p 0.65) the winner is image 1, which 0.8 preferred."""
    p = np.array([0.5 + 0.05 * i for i in range(10)])
    people = np.full(10, 0.2)
    winner = np.array([0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    bins = calibration(winner, p, people)
    assert [row.predicted for row in bins] == pytest.approx(p.tolist()) and [row.pairs for row in bins] == [1] * 10
    assert [row.observed for row in bins] == pytest.approx([0.2] * 3 + [0.8] + [0.2] * 6)


def test_a_winner_below_one_half_predicts_the_other_image():
    """p_winner 0.3 of image 0 is 0.7 of image 1, which nobody or everybody preferred."""
    bins = calibration(np.array([0, 0]), np.array([0.3, 0.3]), np.array([1.0, 0.0]))
    assert bins == [CalibrationBin(2, pytest.approx(0.7), 0.5)]


def test_equal_probabilities_share_a_bin_and_unjudged_pairs_are_left_out():
    ones = calibration(np.zeros(30), np.ones(30), np.array([1.0] * 15 + [0.0] * 5 + [math.nan] * 10))
    assert ones == [CalibrationBin(20, 1.0, 0.75)]
    assert calibration(np.zeros(3), np.ones(3), np.full(3, math.nan)) == []


def test_order_does_not_matter_and_a_true_model_is_calibrated():
    """20000 choices by the model itself: each tenth's share is its prediction to 4 standard errors."""
    gaps, people = drawn(0.02, 20000, seed=3)
    p_0 = 1 / (1 + np.exp(-gaps / 0.02))
    winner, p = (p_0 < 0.5).astype(int), np.maximum(p_0, 1 - p_0)
    bins = calibration(winner, p, people)
    shuffled = np.random.default_rng(0).permutation(20000)
    for one, other in zip(bins, calibration(winner[shuffled], p[shuffled], people[shuffled]), strict=True):
        assert (one.pairs, one.predicted) == (2000, pytest.approx(other.predicted)) and one.observed == other.observed
        assert one.observed == pytest.approx(one.predicted, abs=4 * math.sqrt(0.25 / 2000))
