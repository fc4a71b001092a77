"""Seam 1: labels. `(score_0, score_1, human_label) -> (winner, p_winner = alpha / gamma)`, shape (B,) each."""

from smpo.registry import Registry

LABELS = Registry("labels", {
    "hard": "smpo.labels.hard:Hard",
    "smoothed": "smpo.labels.smoothed:Smoothed",
})
