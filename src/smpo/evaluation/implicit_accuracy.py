"""Implicit preference accuracy: on how many held-out pairs the policy prefers the winner more than its reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smpo.evaluation.statistics import Interval, share_interval


@dataclass(frozen=True)
class ImplicitAccuracy:
    """Accuracy of one model on held-out pairs.

    Attributes:
        model: name of the model's image set.
        pairs: number of held-out pairs.
        accuracy: share of pairs whose margin, averaged over the timesteps, is positive; a zero margin counts half. Its
            Wilson interval is over the effective number of pairs, for pairs of one prompt are not independent.
        by_timestep: (timestep, accuracy from the margins at this timestep only).
        mean_margin: mean over pairs and timesteps; errors are means over latent elements.
    """

    model: str
    pairs: int
    accuracy: Interval
    by_timestep: tuple[tuple[int, Interval], ...]
    mean_margin: float


def implicit_accuracy(
    model: str, margins: np.ndarray, timesteps: Sequence[int], prompts: Sequence[int]
) -> ImplicitAccuracy:
    """The accuracy of implicit margins.

    Args:
        model: name of the set.
        margins: implicit margins, shape (timesteps, pairs); positive = the policy prefers the winner more
            than its reference does.
        timesteps: timestep of each row.
        prompts: number of each pair's prompt, shape (pairs,).
    """
    def share(values: np.ndarray) -> Interval:
        return share_interval((1 + np.sign(values)) / 2, prompts)

    return ImplicitAccuracy(
        model, margins.shape[1], share(margins.mean(axis=0)),
        tuple((int(t), share(row)) for t, row in zip(timesteps, margins, strict=True)), float(margins.mean()),
    )
