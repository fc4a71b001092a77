"""Smoothed labels: their distribution, and which pairs dominate the gradient."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
DECILES = 10
LATE_LOGIT = 2.0


@dataclass(frozen=True)
class Decile:
    """A tenth of the pairs, by |2 alpha - gamma|.

    Attributes:
        pairs: number of pairs.
        low: smallest |2 alpha - gamma|.
        high: largest |2 alpha - gamma|.
        weight_share: share of the sum of |2 alpha - gamma|, in [0, 1]: the share of the gradient at the start of
            training.
        square_share: share of the sum of squares: the share of the gradient's variance.
        late_share: share of the gradient at the margin at which the heaviest pair's logit is LATE_LOGIT.
    """

    pairs: int
    low: float
    high: float
    weight_share: float
    square_share: float
    late_share: float


@dataclass(frozen=True)
class TrainingSignal:
    """The distribution of smoothed labels and of the weights 2 alpha - gamma.

    Attributes:
        pairs: labelled pairs.
        gamma: sensitivity; it scales all weights and changes no share.
        p_quantiles: quantile in [0, 1], as text -> smoothed probability of the winner.
        negative: pairs with 2 alpha < gamma; their gradient favours the loser.
        effective_pairs: (sum |w|)^2 / sum w^2 (Kish): number of equally weighted pairs of the same variance.
        deciles: from the lightest tenth to the heaviest.
    """

    pairs: int
    gamma: float
    p_quantiles: dict[str, float]
    negative: int
    effective_pairs: float
    deciles: tuple[Decile, ...]


def training_signal(p_winner: np.ndarray, *, gamma: float) -> TrainingSignal:
    """Shares of the gradient of the loss -log sigmoid(beta / 2 (2 alpha - gamma) margin), alpha = gamma p_winner.

    The derivative by the margin is -beta / 2 w sigmoid(-beta / 2 w margin), w = 2 alpha - gamma. Training starts at
    margin 0, where a pair's share of the gradient is its share of |w|. Later heavy pairs saturate first.

    Args:
        p_winner: alpha / gamma, in [0, 1], shape (n,), n > 0.
        gamma: sensitivity, > 0.
    """
    p = np.asarray(p_winner, dtype=np.float64)
    weights = gamma * (2 * p - 1)
    sizes = np.sort(np.abs(weights))
    late = sizes * expit(-LATE_LOGIT * sizes / (sizes[-1] or 1.0))
    parts = [part for part in np.array_split(np.arange(len(sizes)), DECILES) if len(part)]
    ordered = np.sort(p)
    return TrainingSignal(
        pairs=len(p), gamma=gamma,
        p_quantiles={str(q): float(ordered[int(q * (len(p) - 1))]) for q in QUANTILES},
        negative=int((weights < 0).sum()),
        effective_pairs=float(sizes.sum() ** 2 / np.square(sizes).sum()) if sizes.any() else 0.0,
        deciles=tuple(
            Decile(
                len(part), float(sizes[part[0]]), float(sizes[part[-1]]), _share(sizes, part),
                _share(np.square(sizes), part), _share(late, part),
            )
            for part in parts
        ),
    )


def _share(values: np.ndarray, part: np.ndarray) -> float:
    total = float(values.sum())
    return float(values[part].sum()) / total if total else 0.0
