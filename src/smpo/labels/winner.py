"""Who won a pair: the human or the reward model. Always a named option, never an accident (METHODS D2)."""

import torch
from torch import Tensor

from smpo.checks import check_batch, check_known

JUDGES = ("human", "reward")


def check_judge(winner_by: str) -> None:
    """Raise ConfigError unless `winner_by` is one of JUDGES."""
    check_known(winner_by, JUDGES, what="labels.winner_by")


def winner_by_reward(score_0: Tensor, score_1: Tensor) -> Tensor:
    """Index of the image with the higher score, shape (B,), int64; a tie names image 0 (drop ties first)."""
    check_batch(score_0=score_0, score_1=score_1)
    return (score_1 > score_0).long()


def winner_by_human(human_label: Tensor) -> Tensor:
    """Index of the image that people preferred, shape (B,), int64.

    Args:
        human_label: label_0 of Pick-a-Pic, 1 = image 0 won, 0 = image 1 won, shape (B,).

    Raises:
        ValueError: a tie (0.5) or a missing label (NaN) is left among them.
    """
    check_batch(human_label=human_label)
    decided = (human_label == 0) | (human_label == 1)
    if not torch.all(decided):
        bad = human_label[~decided][0].item()
        raise ValueError(
            f"human labels must be 0 or 1, got {bad} ({int((~decided).sum())} such); "
            "drop human ties (data.drop_human_ties=true) or set labels.winner_by=reward"
        )
    return (human_label == 0).long()
