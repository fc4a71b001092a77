"""Plug-in point 1, labels: who wins each pair, and with what probability. The contract of a member: `label.Label`."""

from typing import TYPE_CHECKING

from smpo.core.registry import Registry

if TYPE_CHECKING:
    from smpo.labels.label import Label

LABELS: "Registry[Label]" = Registry("labels", {
    "hard": "smpo.labels.hard:Hard",
    "smoothed": "smpo.labels.smoothed:Smoothed",
    "votes": "smpo.labels.votes:Votes",
    "bradley_terry": "smpo.labels.bradley_terry:BradleyTerry",
    "ensemble": "smpo.labels.ensemble:Ensemble",
    "majority": "smpo.labels.majority:Majority",
})
