"""Implicit preference accuracy: how often a policy, more than its reference, prefers the winner of a held-out pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smpo.evaluation.statistics import Interval, share_interval


@dataclass(frozen=True)
class ImplicitAccuracy:
    """Accuracy of one set's model on held-out pairs.

    Attributes:
        model: the set.
        pairs: held-out pairs.
        accuracy: share of pairs whose margin, averaged over the timesteps, is positive; a zero margin counts half. With
            its Wilson interval over the effective number of pairs (pairs of one prompt cluster).
        by_timestep: (timestep, the same from the margins at this timestep alone).
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
    """The accuracy that `margins` amount to.

    Args:
        model: name of the set.
        margins: implicit margins, shape (timesteps, pairs); positive = the policy prefers the winner more.
        timesteps: of the rows.
        prompts: number of each pair's prompt.
    """
    def share(values: np.ndarray) -> Interval:
        return share_interval((1 + np.sign(values)) / 2, prompts)

    return ImplicitAccuracy(
        model, margins.shape[1], share(margins.mean(axis=0)),
        tuple((int(t), share(row)) for t, row in zip(timesteps, margins, strict=True)), float(margins.mean()),
    )
