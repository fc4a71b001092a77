"""Labels by the majority of several reward models (BalancedDPO, arXiv 2503.12575)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo.labels.judgements import Judgements
from smpo.labels.scorers import ScorersLabel
from smpo.labels.winner import certain

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Majority(ScorersLabel):
    """The image that more scorers prefer wins; the size of the score gaps does not count.

    Attributes:
        scorers: names of the recipe's score tables; none = all of them.
        soft: p_winner is the share of scorers that agree, where an undecided one counts half; otherwise it is 1.
    """

    soft: bool = False

    @property
    def is_smoothed(self) -> bool:
        """Whether `soft` is set."""
        return self.soft

    def ties(self, judgements: Judgements) -> Tensor:
        """Whether as many scorers prefer image 0 as image 1, shape (B,), bool."""
        return _balance(judgements) == 0

    def __call__(self, judgements: Judgements) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner (B,) float32); a tie gives image 0 (drop ties first)."""
        balance = _balance(judgements)
        winner = (balance < 0).long()
        if not self.soft:
            return winner, certain(winner)
        return winner, ((1 + balance.abs() / len(judgements.score_0)) / 2).float()


def _balance(judgements: Judgements) -> Tensor:
    """Number of scorers that prefer image 0 minus number that prefer image 1, shape (B,), float64."""
    return (judgements.score_0 - judgements.score_1).sign().sum(dim=0)
