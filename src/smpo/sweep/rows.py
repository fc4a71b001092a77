"""The result of one run as a record, for the tables and plots of a sweep."""

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

LAST_STEPS = 10  # steps over which the training metrics are averaged


def row_of(recipe: Recipe, run: PlannedRun) -> dict[str, Any]:
    """Scores of the trained model and of the base, win-rates, attributes, metrics and work of the training."""
    out = recipe.folder("evaluate")
    base, trained = (ImageScores.open(out / name) for name in (BASE, recipe.name))
    return {
        **named(run),
        "scores": {name: _scores(base, trained, name) for name in trained.scores},
        "attributes": {name: _attributes(trained, name) for name in trained.details},
        "training": _training(recipe),
    }


def named(run: PlannedRun) -> dict[str, Any]:
    """Row, seed, settings and curve of the run."""
    return {"row": run.row, "seed": run.seed, "settings": run.settings, "curve": run.curve}


def wins_of(run: Path, other: Path) -> dict[str, float]:
    """Scorer -> win-rate of the model in folder `run` over the one in `other`, same prompts and seeds."""
    a, b = (ImageScores.open(folder / "evaluate" / folder.name) for folder in (run, other))
    return {scorer: win_rate(a.rows(scorer), b.rows(scorer)).rate for scorer in a.scores}


def _scores(base: ImageScores, trained: ImageScores, scorer: str) -> dict[str, float]:
    before, after = base.scores[scorer], trained.scores[scorer]
    won = win_rate(trained.rows(scorer), base.rows(scorer))
    return {
        "mean": float(after.mean(dtype=np.float64)), "median": float(np.median(after)),
        "base_mean": float(before.mean(dtype=np.float64)), "base_median": float(np.median(before)),
        "win_rate": won.rate, "win_low": won.low, "win_high": won.high, "ties": won.ties,
    }


def _attributes(table: ImageScores, scorer: str) -> dict[str, float]:
    """Attribute -> share of images that have it right, among those whose prompt asks for it."""
    verdicts: dict[str, list[bool]] = {}
    for of_image in table.details[scorer]:
        for name, right in of_image.items():
            verdicts.setdefault(name, []).append(right)
    return {name: float(np.mean(rights)) for name, rights in sorted(verdicts.items())}


def _training(recipe: Recipe) -> dict[str, float]:
    """Number of steps and pairs, and means of the metrics over the last steps."""
    lines = [json.loads(line) for line in metrics_of(recipe.folder("train")).read_text().splitlines()]
    last = lines[-LAST_STEPS:]
    means = {key: float(np.mean([line[key] for line in last])) for key in last[-1] if key not in ("step", "epoch")}
    return {"steps": len(lines), "pairs": len(lines) * recipe.training.batch_size, **means}
