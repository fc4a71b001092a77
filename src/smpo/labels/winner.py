"""Who won a pair: one person, several, or the reward model. Always a named option, never an accident (METHODS D2)."""

import torch
from torch import Tensor

from smpo.core.checks import check_batch, check_known
from smpo.labels.judgements import Judgements

JUDGES = ("human", "reward", "votes")


def check_judge(winner_by: str) -> None:
    """Raise ConfigError unless `winner_by` is one of JUDGES."""
    check_known(winner_by, JUDGES, what="labels.winner_by")


def winner_by(judge: str, judgements: Judgements) -> Tensor:
    """Index of the image that `judge`, one of JUDGES, prefers, shape (B,), int64; reward is the first score table."""
    if judge == "reward":
        return winner_by_reward(judgements.score_0[0], judgements.score_1[0])
    return winner_by_human(judgements.human_label) if judge == "human" else winner_by_votes(judgements.p_win)


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


def winner_by_votes(p_win: Tensor) -> Tensor:
    """Index of the image with more votes, shape (B,), int64.

    Args:
        p_win: share of the votes that image 0 got, in [0, 1], shape (B,).

    Raises:
        ValueError: a tie (0.5), a missing share (NaN) or a number outside [0, 1] is left among them.
    """
    check_batch(p_win=p_win)
    decided = (p_win >= 0) & (p_win <= 1) & (p_win != 0.5)
    if not torch.all(decided):
        bad = p_win[~decided][0].item()
        raise ValueError(
            f"shares of votes must lie in [0, 1] and not be 1/2, got {bad} ({int((~decided).sum())} such); "
            "drop those pairs first"
        )
    return (p_win < 0.5).long()


def of_winner(winner: Tensor, values_0: Tensor, values_1: Tensor) -> tuple[Tensor, Tensor]:
    """(winners', losers') values, shape (B,) each, of values of image 0 and of image 1."""
    return torch.where(winner == 0, values_0, values_1), torch.where(winner == 0, values_1, values_0)
