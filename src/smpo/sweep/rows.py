"""The result of one run as a flat record: what the tables and plots of a sweep are made from."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from smpo.evaluation.scores import ImageScores
from smpo.evaluation.statistics import win_rate
from smpo.pipeline.config import Recipe
from smpo.pipeline.stages import BASE
from smpo.sweep.plan import PlannedRun
from smpo.training.result import metrics_of

LAST_STEPS = 10  # over which the training metrics are averaged


def row_of(recipe: Recipe, run: PlannedRun) -> dict[str, Any]:
    """Scores of the trained model and the base, its wins over it, what training came to and what it evaluated."""
    out = recipe.folder("evaluate")
    base, ours = (ImageScores.open(out / name) for name in (BASE, recipe.name))
    return {
        **named(run),
        "scores": {name: _scores(base, ours, name) for name in ours.scores},
        "attributes": {name: _attributes(ours, name) for name in ours.details},
        "training": _training(recipe),
    }


def named(run: PlannedRun) -> dict[str, Any]:
    """What a sweep calls the run."""
    return {"row": run.row, "seed": run.seed, "settings": run.settings, "curve": run.curve}


def wins_of(ours: Path, theirs: Path) -> dict[str, float]:
    """Scorer -> win-rate of the model of run folder `ours` over that of `theirs`, same prompts and seeds."""
    a, b = (ImageScores.open(folder / "evaluate" / folder.name) for folder in (ours, theirs))
    return {scorer: win_rate(a.rows(scorer), b.rows(scorer)).rate for scorer in a.scores}


def _scores(base: ImageScores, ours: ImageScores, scorer: str) -> dict[str, float]:
    before, after = base.scores[scorer], ours.scores[scorer]
    won = win_rate(ours.rows(scorer), base.rows(scorer))
    return {
        "mean": float(after.mean(dtype=np.float64)), "median": float(np.median(after)),
        "base_mean": float(before.mean(dtype=np.float64)), "base_median": float(np.median(before)),
        "win_rate": won.rate, "win_low": won.low, "win_high": won.high, "ties": won.ties,
    }


def _attributes(table: ImageScores, scorer: str) -> dict[str, float]:
    """Attribute -> share of the images that ask for it and have it."""
    found: dict[str, list[bool]] = {}
    for verdicts in table.details[scorer]:
        for name, right in verdicts.items():
            found.setdefault(name, []).append(right)
    return {name: float(np.mean(rights)) for name, rights in sorted(found.items())}


def _training(recipe: Recipe) -> dict[str, float]:
    """Means over the last steps, and the work of all of them."""
    lines = [json.loads(line) for line in metrics_of(recipe.folder("train")).read_text().splitlines()]
    last = lines[-LAST_STEPS:]
    means = {key: float(np.mean([line[key] for line in last])) for key in last[-1] if key not in ("step", "epoch")}
    return {"steps": len(lines), "pairs": len(lines) * recipe.training.batch_size, **means}
