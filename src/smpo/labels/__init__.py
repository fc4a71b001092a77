"""Plug-in point 1, labels: who wins each pair, and with what probability. The contract of a member: `label.Label`."""

from smpo.core.registry import Registry

LABELS = Registry("labels", {
    "hard": "smpo.labels.hard:Hard",
    "smoothed": "smpo.labels.smoothed:Smoothed",
    "votes": "smpo.labels.votes:Votes",
    "bradley_terry": "smpo.labels.bradley_terry:BradleyTerry",
    "ensemble": "smpo.labels.ensemble:Ensemble",
    "majority": "smpo.labels.majority:Majority",
})
