"""Hours by the rate of a run that was made, in place of a share of a named GPU's peak."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smpo.core.errors import ConfigError, DataError
from smpo.core.metrics_file import read_metrics
from smpo.cost.architecture import architecture_of
from smpo.cost.estimate import Estimate
from smpo.cost.flops import evaluations_flops, forward_flops
from smpo.pipeline.config import Recipe, load_recipe

FIRST_STEPS = 2
"""Logged steps that do not count: kernels are chosen and compiled in them, and memory is asked for."""
DECISIVE = {
    "model": ("name", "source"), "cache": ("resolution",),
    "training": ("micro_batch_size", "lora", "gradient_checkpointing", "compile", "channels_last"),
}
"""Section -> keys of a recipe on which the rate depends, beside the devices."""


@dataclass(frozen=True)
class MeasuredHours:
    """What the devices of a measured run would take, wall-clock; caching, which no training measures, apart.

    Attributes:
        folder: of the run.
        steps: of its metrics that count.
        flop_per_s: their median, over all processes of the run together.
        differs: recipe key -> (in the run, in the recipe asked about), of those on which the rate depends.
        storing: hours of `smpo invert`, as if at the same rate.
        training: hours, without checkpoints and samples.
    """

    folder: str
    steps: int
    flop_per_s: float
    differs: dict[str, tuple[str, str]]
    storing: float
    training: float


def measured_hours(recipe: Recipe, found: Estimate, folder: Path) -> MeasuredHours:
    """The hours of `recipe`, whose estimate is `found`, at the rate of the run in `folder`.

    Args:
        recipe: resolved.
        found: its estimate.
        folder: of a training run, finished or not: `paths.train` of its recipe, or the work folder around it.

    Raises:
        DataError: the folder holds no run, or too few steps.
        ConfigError: the run had another precision.
    """
    run = next((one for one in (folder, folder / "train") if (one / "recipe.yaml").is_file()), None)
    if run is None:
        raise DataError(f"{folder} holds no training run (recipe.yaml and metrics.jsonl); give one such as runs/NAME")
    own = load_recipe(str(run / "recipe.yaml"))
    theirs, asked = own.training.mixed_precision, recipe.training.mixed_precision
    if theirs != asked:
        raise ConfigError(
            f"the run in {run} has training.mixed_precision={theirs}, the recipe {asked}: its rate tells nothing; "
            f"measure a run with {asked}, a few steps are enough"
        )
    rates = step_rates(run / "metrics.jsonl", own)
    rate = float(np.median(rates))
    storing = 0.0 if found.storing is None else found.storing.flops
    return MeasuredHours(
        str(run), len(rates), rate, _differences(own, recipe), storing / rate / 3600,
        found.flops_per_example * found.examples / rate / 3600,
    )


def step_rates(metrics: Path, recipe: Recipe) -> np.ndarray:
    """FLOP/s of each logged step but the first, by the evaluations that it counted itself, shape (steps,).

    Raises:
        DataError: the file is missing, damaged, or has too few steps.
    """
    columns = read_metrics(metrics)
    if missing := {"examples_per_s", "nfe_grad", "nfe_no_grad"} - columns.keys():
        raise DataError(f"{metrics} tells no {', '.join(sorted(missing))}, as runs of old did; measure a new run")
    steps = len(columns["step"])
    if steps <= FIRST_STEPS:
        raise DataError(
            f"{metrics} has {steps} logged steps, of which the first {FIRST_STEPS} do not count; let the run go on"
        )
    forward = forward_flops(architecture_of(recipe.model), recipe.cache.resolution).unet
    trained, free = columns["nfe_grad"], columns["nfe_no_grad"]
    flops = evaluations_flops(trained, free, forward=forward, options=recipe.training)
    return (columns["examples_per_s"] * flops)[FIRST_STEPS:]


def _differences(run: Recipe, asked: Recipe) -> dict[str, tuple[str, str]]:
    """Key -> the values of both recipes, as YAML has them, where they are not the same."""
    before, now = (recipe.model_dump(mode="json") for recipe in (run, asked))
    pairs = {f"{section}.{key}": (before[section][key], now[section][key])
             for section, keys in DECISIVE.items() for key in keys}
    return {key: (_text(one), _text(other)) for key, (one, other) in pairs.items() if one != other}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
