"""Which score tables a label of several scorers reads."""

from collections.abc import Sequence

from smpo.core.checks import check_known
from smpo.core.errors import ConfigError


def named_tables(scorers: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """`scorers`, or all of `known` where none are named; ConfigError for one that is not known."""
    for name in scorers:
        check_known(name, known, what="score table in labels.scorers")
    return tuple(scorers or known)


def check_distinct(scorers: Sequence[str]) -> None:
    """Raise ConfigError if a name occurs twice."""
    repeated = [name for name in dict.fromkeys(scorers) if scorers.count(name) > 1]
    if repeated:
        raise ConfigError(f"labels.scorers must name each score table once, got {', '.join(repeated)} more than once")
