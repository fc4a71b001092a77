"""Seam 1: labels. `(judgements) -> (winner, p_winner = alpha / gamma)`, shape (B,) each; see `label.Label`."""

from smpo.core.registry import Registry

LABELS = Registry("labels", {
    "hard": "smpo.labels.hard:Hard",
    "smoothed": "smpo.labels.smoothed:Smoothed",
    "votes": "smpo.labels.votes:Votes",
    "bradley_terry": "smpo.labels.bradley_terry:BradleyTerry",
    "ensemble": "smpo.labels.ensemble:Ensemble",
    "majority": "smpo.labels.majority:Majority",
})
