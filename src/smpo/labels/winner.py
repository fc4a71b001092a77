"""Who wins a pair: the choice of one person, the majority of votes, or the higher score (METHODS D2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo.core.checks import check_batch, check_known
from smpo.labels.judgements import Judgements
from smpo.labels.label import Label

if TYPE_CHECKING:
    from torch import Tensor

JUDGES = ("human", "reward", "votes")


@dataclass(frozen=True, kw_only=True)
class WinnerLabel(Label):
    """A label with the setting `winner_by`: "reward", "human" (one person) or "votes" (the majority of several)."""

    winner_by: str = "reward"

    def __post_init__(self) -> None:
        check_known(self.winner_by, JUDGES, what="labels.winner_by")

    @property
    def needs_human(self) -> bool:
        """Whether one person names the winner."""
        return self.winner_by == "human"

    @property
    def needs_votes(self) -> bool:
        """Whether the votes name the winner."""
        return self.winner_by == "votes"

    def winner(self, judgements: Judgements) -> Tensor:
        """Index of the image that `winner_by` prefers, shape (B,), int64; "reward" reads the first score table."""
        if self.winner_by == "reward":
            return winner_by_reward(judgements.score_0[0], judgements.score_1[0])
        if self.winner_by == "human":
            return winner_by_human(judgements.human_label)
        return winner_by_votes(judgements.vote_share_0)


def winner_by_reward(score_0: Tensor, score_1: Tensor) -> Tensor:
    """Index of the image with the higher score, shape (B,), int64; a tie gives image 0 (drop ties first)."""
    check_batch(score_0=score_0, score_1=score_1)
    return (score_1 > score_0).long()


def winner_by_human(human_label: Tensor) -> Tensor:
    """Index of the image that one person chose, shape (B,), int64.

    Args:
        human_label: label_0 of Pick-a-Pic, 1 = image 0 won, 0 = image 1 won, shape (B,).

    Raises:
        ValueError: a label is a tie (0.5) or missing (NaN).
    """
    check_batch(human_label=human_label)
    decided = (human_label == 0) | (human_label == 1)
    if not decided.all():
        bad = human_label[~decided][0].item()
        raise ValueError(
            f"human labels must be 0 or 1, got {bad} ({int((~decided).sum())} such); "
            "drop human ties (data.drop_human_ties=true) or set labels.winner_by=reward"
        )
    return (human_label == 0).long()


def winner_by_votes(vote_share_0: Tensor) -> Tensor:
    """Index of the image with more votes, shape (B,), int64.

    Args:
        vote_share_0: share of the votes for image 0, in [0, 1], shape (B,).

    Raises:
        ValueError: a share is a tie (0.5), missing (NaN) or outside [0, 1].
    """
    check_batch(vote_share_0=vote_share_0)
    decided = (vote_share_0 >= 0) & (vote_share_0 <= 1) & (vote_share_0 != 0.5)
    if not decided.all():
        bad = vote_share_0[~decided][0].item()
        raise ValueError(
            f"shares of votes must lie in [0, 1] and not be 1/2, got {bad} ({int((~decided).sum())} such); "
            "drop those pairs first"
        )
    return (vote_share_0 < 0.5).long()


def of_winner(winner: Tensor, values_0: Tensor, values_1: Tensor) -> tuple[Tensor, Tensor]:
    """(winners' values, losers' values), shape (B,) each, from the values of image 0 and of image 1."""
    return values_0.where(winner == 0, values_1), values_1.where(winner == 0, values_0)


def certain(winner: Tensor) -> Tensor:
    """p_winner = 1 for every pair, shape (B,), float32."""
    return winner.new_ones(winner.shape).float()
