"""The records of checks: probes and findings."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from smpo.pipeline.config import Recipe


class Outcome(enum.Enum):
    """The result of a probe."""

    OK = "ok"
    WARNING = "warning"  # the run would go on, but the user should know
    FAILED = "FAILED"    # the run would stop here, now or hours later


@dataclass(frozen=True)
class Finding:
    """One result of a probe.

    Attributes:
        subject: what was checked, such as "model".
        outcome: whether it is all right.
        text: facts about it, or what is wrong and what to do.
    """

    subject: str
    outcome: Outcome
    text: str


@dataclass(frozen=True)
class Note:
    """A result of a probe with which the run can go on."""

    text: str
    outcome: Outcome = Outcome.OK


Check = Callable[[Recipe], Iterable[Note]]
"""Checks one thing; raises SmpoError if the run could not go on."""


@dataclass(frozen=True)
class Probe:
    """A check and the stages that need it.

    Attributes:
        subject: what is checked.
        stages: names of the stages that could not run without it.
        check: the function that checks it.
        after: subjects that must be all right first: if one of them has failed, the check is left out.
    """

    subject: str
    stages: frozenset[str]
    check: Check
    after: frozenset[str] = frozenset()
