"""The records of a check."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from smpo.pipeline.config import Recipe


class Outcome(enum.Enum):
    """How a question was answered."""

    OK = "ok"
    WARNING = "warning"  # the run will go on; its user should know
    FAILED = "FAILED"    # the run would stop here, now or hours later


@dataclass(frozen=True)
class Finding:
    """One answer.

    Attributes:
        subject: what was looked at, such as "model".
        outcome: how it looks.
        text: what was found, or what is wrong and the way out.
    """

    subject: str
    outcome: Outcome
    text: str


@dataclass(frozen=True)
class Note:
    """What a probe has found, where the run can go on."""

    text: str
    outcome: Outcome = Outcome.OK


Question = Callable[[Recipe], Iterable[Note]]
"""Looks at one thing; raises SmpoError where the run could not go on."""


@dataclass(frozen=True)
class Probe:
    """A question and the stages that need its answer.

    Attributes:
        subject: what is looked at.
        stages: verbs that would fail without it.
        ask: the question.
        after: subjects without which the question makes no sense: it is not asked where one of them has failed.
    """

    subject: str
    stages: frozenset[str]
    ask: Question
    after: frozenset[str] = frozenset()
