"""Smoothed labels (Eq. 8, 10-12): METHODS 2.2 and 18.3."""

import math

import numpy as np
import pytest
import torch

from smpo.core.errors import ConfigError
from smpo.maths.smoothing import (
    bradley_terry_probability,
    linear_probability,
    pair_weight,
    smoothed_likelihood,
    smoothed_probability,
)
from tests.maths import references
from tests.maths.references import doubles, draw

PICKSCORE = {"score_min": 0.11543526500463486, "score_max": 0.28201571106910706}  # METHODS 3.2


def p_of_gap(gap: float) -> torch.Tensor:
    return smoothed_probability(doubles(0.2 + gap), doubles(0.2), **PICKSCORE)


@pytest.mark.parametrize(("gap", "scaled_gap", "p", "weight", "of_pickscore"), [
    (0.002, 0.0120, 0.5030, 0.060, 0.100), (0.005, 0.0300, 0.5075, 0.150, 0.245), (0.010, 0.0600, 0.5150, 0.300, 0.462),
    (0.020, 0.1201, 0.5300, 0.600, 0.762), (0.030, 0.1801, 0.5449, 0.898, 0.905), (0.050, 0.3002, 0.5745, 1.490, 0.987),
    (0.100, 0.6003, 0.6457, 2.915, 1.000), (0.16658045, 1.0, 0.7311, 4.621, 1.000),
])
def test_weight_of_a_pickscore_gap(gap: float, scaled_gap: float, p: float, weight: float, of_pickscore: float) -> None:
    """The table of METHODS 18.3, gamma = 10; the last column is PickScore's own 2 sigmoid(100 gap) - 1."""
    actual = p_of_gap(gap)
    assert gap / (PICKSCORE["score_max"] - PICKSCORE["score_min"]) == pytest.approx(scaled_gap, abs=6e-5)
    assert actual.item() == pytest.approx(p, abs=6e-5)
    assert pair_weight(actual, gamma=10).item() == pytest.approx(weight, abs=6e-4)
    preference = torch.sigmoid(doubles(100 * gap))
    assert pair_weight(preference, gamma=1).item() == pytest.approx(of_pickscore, abs=6e-4)


@pytest.mark.parametrize("offset", ["max", "min"])
def test_equals_the_softmax_of_scaled_scores(offset: str) -> None:
    """Eq. 11 subtracts the maximum, the released code the minimum (D4): both are the difference form."""
    r_w, r_l = 0.25 + 0.02 * draw(7), 0.2 + 0.02 * draw(7, seed=1)
    expected = [
        references.softmax_of_scaled(w, loser, *PICKSCORE.values(), offset=offset)
        for w, loser in zip(r_w.numpy(), r_l.numpy(), strict=True)
    ]
    np.testing.assert_allclose(smoothed_probability(r_w, r_l, **PICKSCORE).numpy(), expected, rtol=1e-13)


def test_data_derived_range_bounds_the_probability() -> None:
    """Scores inside their own range, winner higher: p in [1/2, e / (1 + e)], the ends reached by tie and span."""
    scores = draw(2, 500)
    low, high = scores.min().item(), scores.max().item()
    p = smoothed_probability(scores.max(dim=0).values, scores.min(dim=0).values, score_min=low, score_max=high)
    assert p.min() >= 0.5 and p.max() <= math.e / (1 + math.e)
    ends = smoothed_probability(doubles(high, low), doubles(low, low), score_min=low, score_max=high)
    assert ends.tolist() == pytest.approx([math.e / (1 + math.e), 0.5], abs=1e-15)


def test_weight_is_a_tanh_of_the_gap() -> None:
    """gamma (2 p - 1) = gamma tanh((r_w - r_l) / (2 (max - min)))."""
    r_w, r_l = draw(9), draw(9, seed=1)
    weight = pair_weight(smoothed_probability(r_w, r_l, score_min=-2.0, score_max=3.0), gamma=7)
    np.testing.assert_allclose(weight.numpy(), 7 * np.tanh((r_w - r_l).numpy() / 10), rtol=1e-12, atol=1e-15)


def test_affine_maps_of_the_scores_change_nothing() -> None:
    r_w, r_l = draw(9), draw(9, seed=1)
    plain = smoothed_probability(r_w, r_l, score_min=-3.0, score_max=4.0)
    mapped = smoothed_probability(100 * r_w + 7, 100 * r_l + 7, score_min=-293.0, score_max=407.0)
    assert torch.allclose(plain, mapped, atol=1e-14)


def test_swapping_winner_and_loser_negates_the_weight() -> None:
    r_w, r_l = draw(9), draw(9, seed=1)
    weight = pair_weight(smoothed_probability(r_w, r_l, score_min=0.0, score_max=1.0), gamma=3)
    swapped = pair_weight(smoothed_probability(r_l, r_w, score_min=0.0, score_max=1.0), gamma=3)
    assert torch.allclose(swapped, -weight, atol=1e-14)


def test_weights_by_hand() -> None:
    """gamma (2 p - 1): p = 1, gamma = 1 is DPO's 1; p = 1/2 is 0; p = 0 is -gamma; p = 0.6, gamma = 10 is 2."""
    assert pair_weight(torch.tensor([1.0]), gamma=1).item() == 1
    assert pair_weight(doubles(0.5, 0.0, 0.6), gamma=10).tolist() == pytest.approx([0, -10, 2])


def test_batch_equals_its_rows_alone() -> None:
    r_w, r_l = draw(5), draw(5, seed=1)
    alone = [smoothed_probability(r_w[i:i + 1], r_l[i:i + 1], **PICKSCORE) for i in range(5)]
    assert torch.equal(smoothed_probability(r_w, r_l, **PICKSCORE), torch.cat(alone))


@pytest.mark.parametrize(("low", "high", "got"), [
    (1.0, 1.0, "0.0"), (2.0, 1.0, "-1.0"), (float("nan"), 1.0, "nan"), (float("-inf"), 1.0, "inf"),
])
def test_unusable_score_ranges_raise(low: float, high: float, got: str) -> None:
    with pytest.raises(ConfigError) as error:
        smoothed_probability(torch.ones(1), torch.ones(1), score_min=low, score_max=high)
    assert str(error.value) == f"score_range must be a finite number > 0, got {got}"


@pytest.mark.parametrize(("shape_w", "shape_l", "message"), [
    ((2, 1), (2, 1), "score_w must have shape (B,), got (2, 1); pass one number per pair"),
    ((2,), (3,), "shapes must be equal, got score_w (2,), score_l (3,)"),
])
def test_wrong_shapes_raise(shape_w: tuple, shape_l: tuple, message: str) -> None:
    with pytest.raises(ValueError) as error:
        smoothed_probability(torch.ones(shape_w), torch.ones(shape_l), score_min=0.0, score_max=1.0)
    assert str(error.value) == message


def test_gamma_must_be_positive() -> None:
    with pytest.raises(ConfigError) as error:
        pair_weight(torch.ones(1), gamma=0)
    assert str(error.value) == "gamma must be a finite number > 0, got 0"


def test_smoothed_likelihood_by_hand() -> None:
    """Eq. 8: 0.25^1.5 0.16^(2 - 1.5) = 0.125 * 0.4 = 0.05; alpha = gamma = 1 leaves p_w."""
    assert smoothed_likelihood(0.25, 0.16, alpha=1.5, gamma=2.0) == pytest.approx(0.05, abs=1e-15)
    assert smoothed_likelihood(0.25, 0.16, alpha=1.0, gamma=1.0) == 0.25


def test_smoothed_likelihoods_multiply_the_logit_by_the_weight() -> None:
    """Eq. 10: log(p~_w / p~_l) = (2 alpha - gamma) log(p_w / p_l); p~_l is p~_w with its arguments exchanged."""
    p_w, p_l, alpha, gamma = 0.7, 0.2, 1.3, 2.0
    ratio = smoothed_likelihood(p_w, p_l, alpha=alpha, gamma=gamma) / smoothed_likelihood(
        p_l, p_w, alpha=alpha, gamma=gamma)
    weight = pair_weight(doubles(alpha / gamma), gamma=gamma).item()
    assert math.log(ratio) == pytest.approx(weight * math.log(p_w / p_l), rel=1e-12)


def test_smoothed_likelihood_refuses_what_is_no_probability() -> None:
    with pytest.raises(ConfigError) as error:
        smoothed_likelihood(1.5, 0.2, alpha=1.0, gamma=1.0)
    assert str(error.value) == "p_w must lie in [0, 1], got 1.5"


@pytest.mark.parametrize(("gap", "p"), [(0.0, 0.5), (0.1, 0.55), (0.5, 0.75), (-0.2, 0.4), (1.0, 1.0)])
def test_linear_probability_by_hand(gap: float, p: float) -> None:
    """Range 0.5: 1/2 + gap / 2; it reaches 1 at a gap of twice the range."""
    assert linear_probability(doubles(gap), doubles(0.0), score_min=0.0, score_max=0.5).item() == pytest.approx(p)


def test_the_linear_link_is_the_tangent_and_its_weight_the_gap() -> None:
    """Third order apart: sigmoid(x) = 1/2 + x/4 - x^3/48; gamma (2 p - 1) = gamma gap / (2 range)."""
    gap = doubles(1e-3, 0.03, 0.1)
    ends = {"score_min": 0.0, "score_max": 2.0}
    linear, curved = (f(gap, torch.zeros(3, dtype=torch.float64), **ends)
                      for f in (linear_probability, smoothed_probability))
    np.testing.assert_allclose((linear - curved).numpy(), (gap / 2).numpy() ** 3 / 48, rtol=1e-2)
    np.testing.assert_allclose(pair_weight(linear, gamma=10).numpy(), 2.5 * gap.numpy(), rtol=1e-12)


def test_a_linear_probability_outside_its_interval_is_an_error() -> None:
    with pytest.raises(ConfigError) as error:
        linear_probability(doubles(0.2, 1.5), doubles(0.0, 0.0), score_min=0.0, score_max=0.5)
    assert str(error.value) == ("a linear link needs score gaps up to twice the score range 0.5, got 1.5; "
                                "widen labels.score_range")


def test_bradley_terry_probability_by_hand() -> None:
    """Odds of e a scale: PickScore's own probability 0.731 of a cosine gap of 0.01."""
    p = bradley_terry_probability(doubles(0.22, 0.21, 1e4), doubles(0.21, 0.21, -1e4), scale=0.01)
    assert p.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 0.5, 1.0])
    with pytest.raises(ConfigError, match="^scale must be a finite number > 0, got -1.0$"):
        bradley_terry_probability(doubles(1.0), doubles(0.0), scale=-1.0)
