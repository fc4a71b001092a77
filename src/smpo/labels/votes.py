"""Soft labels from the votes of several people; no model is involved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo.labels.judgements import Judgements
from smpo.labels.label import Label
from smpo.labels.winner import winner_by_votes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Votes(Label):
    """The image with more votes wins, and p_winner is its share of the votes."""

    @property
    def needs_votes(self) -> bool:
        """Always."""
        return True

    def __call__(self, judgements: Judgements) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner in (1/2, 1], (B,) float32)."""
        share = judgements.vote_share_0
        return winner_by_votes(share), share.maximum(1 - share).float()
