"""What the labels of several scorers share: the setting that names their score tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from smpo.core.checks import check_known
from smpo.core.errors import ConfigError
from smpo.labels.label import Label


@dataclass(frozen=True, kw_only=True)
class ScorersLabel(Label):
    """A label with the setting `scorers`: names of the recipe's score tables; none = all of them.

    The tables of a recipe are its scorer's, by the scorer's name, and those in `scoring.also`.
    """

    scorers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        repeated = [name for name in dict.fromkeys(self.scorers) if self.scorers.count(name) > 1]
        if repeated:
            raise ConfigError(
                f"labels.scorers must name each score table once, got {', '.join(repeated)} more than once"
            )

    @property
    def needs_scores(self) -> bool:
        """Always."""
        return True

    def tables(self, known: Sequence[str]) -> tuple[str, ...]:
        """The named tables, or all."""
        for name in self.scorers:
            check_known(name, known, what="score table in labels.scorers")
        return tuple(self.scorers or known)
