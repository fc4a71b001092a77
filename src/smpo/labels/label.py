"""The contract of a label: what every member of `smpo.labels.LABELS` offers and keeps to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from smpo.core.errors import ConfigError
from smpo.labels.judgements import Judgements

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.core.cross_checks import RecipeParts


@dataclass(frozen=True, kw_only=True)
class Label(ABC):
    """Names the winner of each pair and the probability that people prefer it.

    A member is a frozen dataclass; its fields are its settings in the section `labels` of a recipe. Calling it with the
    judgements of B pairs returns two tensors of shape (B,):

    * winner: index of the preferred image, 0 or 1, int64;
    * p_winner: alpha / gamma of SmPO, in [0, 1], float32. It is below 1/2 where people name the winner and the scores
      prefer the other image.

    Every member keeps these rules; tests/labels/test_contract.py checks each of them for each name in `LABELS`:

    1. If the two images of a pair change places, the other index wins and p_winner stays the same (ties excepted).
    2. The label of a pair depends on the other pairs through `score_ranges` alone. A label that measures no range gives
       each pair the same label alone and in any batch.
    3. The caller drops the pairs that lack what `needs_human` or `needs_votes` asks for, and ties of scores. A member
       raises ValueError for a pair that lacks a choice or votes; a tie of scores gives image 0.
    4. A setting that cannot be used raises ConfigError, in one line that names the setting.
    5. Importing its module imports no torch. Its formula is a function of `smpo.maths`, or methods of tensors suffice.
    6. docs/labels.md explains it in its table, and docs/equations.md lists its formula.
    """

    @abstractmethod
    def __call__(self, judgements: Judgements) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64 in {0, 1}, p_winner (B,) float32 in [0, 1])."""

    @property
    def needs_scores(self) -> bool:
        """Whether it reads score tables; the default is no."""
        return False

    @property
    def needs_human(self) -> bool:
        """Whether every pair needs one person's choice, not a tie; the default is no."""
        return False

    @property
    def needs_votes(self) -> bool:
        """Whether every pair needs votes, not as many for one image as for the other; the default is no."""
        return False

    @property
    def needs_scale(self) -> bool:
        """Whether `smpo label` must fit a scale to people's choices and pass it to `with_scale`; the default is no."""
        return False

    @property
    def is_smoothed(self) -> bool:
        """Whether p_winner may differ from 1; the default is yes."""
        return True

    def check_recipe(self, recipe: RecipeParts) -> None:
        """Raise ConfigError unless the objective takes this label, and the recipe has the scorer that it needs."""
        if self.is_smoothed and not recipe.objective.takes_smoothed_labels:
            raise ConfigError(
                f"objective '{recipe.names['objective']}' takes hard labels, got labels.name={recipe.names['labels']}; "
                "set labels.name=hard or objective.name=smpo"
            )
        if self.needs_scores and "scorer" not in recipe.names:
            raise ConfigError(f"labels '{recipe.names['labels']}' need scores: add a scorer section")

    def with_scale(self, scale: float) -> Self:
        """The same label with the fitted `scale`, > 0; called only if `needs_scale`."""
        raise NotImplementedError

    def tables(self, known: Sequence[str]) -> tuple[str, ...]:
        """Names of the score tables it reads, in its order; default: the first of `known`, if it needs scores.

        Args:
            known: names of all score tables of the recipe; the first is that of the recipe's own scorer.

        Raises:
            ConfigError: a table that the settings name is not known.
        """
        return tuple(known[:1]) if self.needs_scores else ()

    def score_ranges(self, judgements: Judgements) -> tuple[tuple[float, float], ...]:
        """(min, max) of each table it reads, if it scales scores by their range; default: none."""
        return ()

    def ties(self, judgements: Judgements) -> Tensor:
        """Whether the scores name no winner, shape (B,), bool; called only if `needs_scores`."""
        return judgements.score_0[0] == judgements.score_1[0]
