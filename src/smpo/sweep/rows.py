"""The result of one run as a record, for the tables and plots of a sweep."""

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from smpo.core.names import BASE
from smpo.evaluation.scores import ImageScores
from smpo.evaluation.statistics import win_rate
from smpo.pipeline.config import Recipe
from smpo.sweep.plan import PlannedRun
from smpo.training.result import metrics_of

LAST_STEPS = 10  # steps over which the training metrics are averaged


class RunRow(TypedDict):
    """The result of one run.

    Attributes:
        row: name of the row, with the point of the grid.
        seed: seed of the run.
        settings: recipe key -> value, where it differs from the recipe.
        curve: (series, x) in the report's plot; None where it has no place there.
        scores: scorer -> statistic, such as mean, base_mean, win_rate -> value.
        attributes: scorer -> attribute -> share of images that have it right.
        training: number of steps and pairs, and means of the metrics over the last steps.
        seconds: stage -> duration, s.
        plan: hash of everything that determines the result.
        wins_of: scorer -> win-rate over this row of the row that `report.wins_of` names.
    """

    row: str
    seed: int
    settings: dict[str, Any]
    curve: tuple[str, float] | None
    scores: dict[str, dict[str, float]]
    attributes: dict[str, dict[str, float]]
    training: dict[str, float]
    seconds: NotRequired[dict[str, float]]
    plan: NotRequired[str]
    wins_of: NotRequired[dict[str, float]]


def row_of(recipe: Recipe, run: PlannedRun) -> RunRow:
    """Scores of the trained model and of the base, win-rates, attributes, metrics and work of the training."""
    out = recipe.folder("evaluate")
    base, trained = (ImageScores.open(out / name) for name in (BASE, recipe.name))
    return {
        "row": run.row, "seed": run.seed, "settings": run.settings, "curve": run.curve,
        "scores": {name: _scores(base, trained, name) for name in trained.scores},
        "attributes": {name: _attributes(trained, name) for name in trained.details},
        "training": _training(recipe),
    }


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
