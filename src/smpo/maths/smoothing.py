"""Smoothed labels from reward scores (Eq. 11-12) and the weight that they give a pair (Eq. 10)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smpo.core.checks import check_batch, check_fraction, check_positive
from smpo.core.errors import ConfigError


def smoothed_probability(score_w: Tensor, score_l: Tensor, *, score_min: float, score_max: float) -> Tensor:
    """alpha / gamma of each pair (Eq. 11-12), shape (B,), in [0, 1].

    sigmoid((r_w - r_l) / (max - min)): the softmax of Eq. 12 over scores scaled as in Eq. 11, whose offset cancels.

    Args:
        score_w: reward of the winner, shape (B,).
        score_l: reward of the loser, shape (B,).
        score_min: smallest reward of the data set.
        score_max: largest reward of the data set, > score_min.

    Raises:
        ConfigError: the range is empty or not finite.
    """
    check_batch(score_w=score_w, score_l=score_l)
    check_positive(score_range=score_max - score_min)
    return bradley_terry_probability(score_w, score_l, scale=score_max - score_min)


def mean_smoothed_probability(
    scores_w: Tensor, scores_l: Tensor, *, ranges: Sequence[tuple[float, float]]
) -> Tensor:
    """Mean over M scorers of Eq. 11-12's probability, each over its own range, shape (B,), in [0, 1].

    Args:
        scores_w: reward of the winner by each scorer, shape (M, B).
        scores_l: reward of the loser, shape (M, B).
        ranges: (smallest, largest) reward of each scorer, M of them.

    Raises:
        ConfigError: a range is empty or not finite.
    """
    return torch.stack([
        smoothed_probability(score_w, score_l, score_min=low, score_max=high)
        for score_w, score_l, (low, high) in zip(scores_w, scores_l, ranges, strict=True)
    ]).mean(dim=0)


def bradley_terry_probability(score_w: Tensor, score_l: Tensor, *, scale: float) -> Tensor:
    """sigmoid((r_w - r_l) / scale) of each pair (Bradley & Terry 1952), shape (B,), in [0, 1].

    Args:
        score_w: reward of the winner, shape (B,).
        score_l: reward of the loser, shape (B,).
        scale: gap of rewards that makes odds of e to 1, > 0.

    Raises:
        ConfigError: the scale is not a finite number > 0.
    """
    check_batch(score_w=score_w, score_l=score_l)
    check_positive(scale=scale)
    return torch.sigmoid((score_w - score_l) / scale)


def linear_probability(score_w: Tensor, score_l: Tensor, *, score_min: float, score_max: float) -> Tensor:
    """1/2 + (r_w - r_l) / (4 (max - min)) of each pair, shape (B,): the tangent of Eq. 11-12 at equal rewards.

    Its weight 2 alpha - gamma = gamma (r_w - r_l) / (2 (max - min)) is exactly proportional to the reward gap (METHODS
    18.3). Rewards inside their range give [1/4, 3/4].

    Args:
        score_w: reward of the winner, shape (B,).
        score_l: reward of the loser, shape (B,).
        score_min: smallest reward of the data set.
        score_max: largest reward of the data set, > score_min.

    Raises:
        ConfigError: the range is empty or not finite, or so much smaller than a gap that p leaves [0, 1].
    """
    check_batch(score_w=score_w, score_l=score_l)
    check_positive(score_range=score_max - score_min)
    p = 0.5 + (score_w - score_l) / (4 * (score_max - score_min))
    if not torch.all((p >= 0) & (p <= 1)):
        gap = (score_w - score_l).abs().max().item()
        raise ConfigError(
            f"a linear link needs score gaps up to twice the score range {score_max - score_min:g}, got {gap:g}; "
            "widen labels.score_range"
        )
    return p


def pair_weight(p_winner: Tensor, *, gamma: float) -> Tensor:
    """2 alpha - gamma = gamma (2 p - 1) of each pair (Eq. 10), shape (B,), in [-gamma, gamma].

    Zero where the reward model finds the images alike; p = 1 and gamma = 1 give Diffusion-DPO's weight 1.
    """
    check_positive(gamma=gamma)
    return gamma * (2 * p_winner - 1)


def smoothed_likelihood(p_w: float, p_l: float, *, alpha: float, gamma: float) -> float:
    """Unnormalised smoothed likelihood p_w^alpha p_l^(gamma - alpha) of a winner (Eq. 8, left)."""
    check_fraction(p_w=p_w, p_l=p_l)
    return p_w**alpha * p_l ** (gamma - alpha)
