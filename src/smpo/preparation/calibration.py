"""Compares scores with people's choices: fits the Bradley-Terry scale, and measures the calibration of labels."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from smpo.core.errors import DataError

BINS = 10


@dataclass(frozen=True)
class ScaleFit:
    """A Bradley-Terry scale, fitted by maximum likelihood.

    Attributes:
        scale: score gap at which the odds are e to 1, > 0.
        standard_error: of the scale, robust, so that it holds for shares of any number of votes; pairs count as
            independent.
        pairs: number of pairs with unequal scores and a human judgement, to which it was fitted.
    """

    scale: float
    standard_error: float
    pairs: int


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs with similar p_winner: its mean, and the share of people who did prefer the predicted image."""

    pairs: int
    predicted: float
    observed: float


def fit_scale(gaps: np.ndarray, people: np.ndarray) -> ScaleFit:
    """The scale s that maximises sum_i y_i log sigmoid(g_i / s) + (1 - y_i) log sigmoid(-g_i / s).

    The likelihood is concave in 1 / s, so the root of its derivative is the maximum.

    Args:
        gaps: score of image 0 minus score of image 1, shape (n,).
        people: share of people who prefer image 0, in [0, 1]; NaN without a judgement, shape (n,).

    Raises:
        DataError: no pair has a judgement and unequal scores, the scores always agree with people (then any smaller
            scale fits better), or they agree no more often than chance (then no positive scale fits).
    """
    judged = ~np.isnan(people) & (gaps != 0)
    g, y = gaps[judged], people[judged]
    if not len(g):
        raise DataError("labels.scale cannot be fitted: no pair has a human label or votes and unequal scores; "
                        "give labels.scale (0.01 for PickScore's cosines) or a source with label_0 or vote_share_0")
    unit = np.abs(g).max()  # the slope is sought in units of the largest gap, whatever the units of the scorer
    x = g / unit

    def derivative(slope: float) -> float:
        return float(np.sum(x * (y - expit(slope * x))))

    if derivative(0.0) <= 0:
        raise DataError(f"labels.scale cannot be fitted: on {len(g)} pairs the scores agree with people no more than "
                        "chance would; use labels from people (hard, votes), or another scorer")
    if np.all(y == (x > 0)):
        raise DataError(f"labels.scale cannot be fitted: the scores agree with people on all {len(g)} pairs, so that "
                        "any smaller scale fits better; give labels.scale, or more pairs")
    high = 1.0
    while derivative(high) > 0:
        high *= 2
    slope = float(brentq(derivative, 0.0, high, xtol=1e-12, rtol=1e-12))
    p = expit(slope * x)
    information, variance = np.sum(x**2 * p * (1 - p)), np.sum(x**2 * (y - p) ** 2)
    error_of_slope = math.sqrt(variance) / information
    return ScaleFit(float(unit / slope), float(unit * error_of_slope / slope**2), len(g))


def calibration(winner: np.ndarray, p_winner: np.ndarray, people: np.ndarray) -> list[CalibrationBin]:
    """Calibration of the pairs that people judged, in tenths from the least to the most certain labels.

    Pairs with equal probabilities are in the same tenth. If p_winner < 1/2 (people named the winner and the scores
    disagree), the other image is the predicted one.

    Args:
        winner: index of the winning image, in {0, 1}, shape (n,).
        p_winner: its probability, shape (n,).
        people: as in `fit_scale`.
    """
    judged = ~np.isnan(people)
    predicts_0 = (winner == 0) == (p_winner >= 0.5)
    p = np.maximum(p_winner, 1 - p_winner)[judged].astype(np.float64)
    observed = np.where(predicts_0, people, 1 - people)[judged]
    values, first, ranks = np.unique(np.sort(p), return_index=True, return_inverse=True)
    tenth = np.empty_like(p, dtype=np.int64)
    tenth[np.argsort(p, kind="stable")] = (BINS * first // max(1, len(p)))[ranks]
    return [
        CalibrationBin(int(inside.sum()), float(p[inside].mean()), float(observed[inside].mean()))
        for inside in (tenth == number for number in range(BINS)) if inside.any()
    ]
