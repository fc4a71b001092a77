"""Trackers (TensorBoard, W&B and others, through accelerate): project, run name, settings, metrics and sample grids."""

import json
import secrets
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from accelerate import Accelerator
from PIL import Image

from smpo.core.artefacts import write_atomically
from smpo.core.errors import ConfigError
from smpo.training.run import Run

LOGS = "logs"  # folder of TensorBoard's files, below the run's
WANDB_ID = "wandb-id.txt"
SAMPLES = "samples"


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError, with the line that installs it, for a tracker whose package is not there."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(
                f"training.trackers: {name} is not installed; pip install {name}, or leave it out of training.trackers"
            )


def start_tracking(accelerator: Accelerator, run: Run, *, step: int) -> None:
    """Open the run's trackers, with all of its settings as hyper-parameters; a resumed run goes on in the same ones.

    Args:
        accelerator: made with the run's trackers.
        run: the run.
        step: optimizer steps done before.

    Raises:
        ConfigError: a tracker is not installed.
    """
    options = run.options
    if not options.trackers:
        return
    check_trackers(options.trackers)
    name = options.tracking.run or run.name
    given: dict[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": step + 1},  # what was logged after the checkpoint comes again
        "trackio": {"name": name, "resume": "allow"},
        "mlflow": {"run_name": name, "logging_dir": str(run.folder / LOGS)},
        "swanlab": {"experiment_name": name, "logdir": str(run.folder / LOGS)},
    }
    if "wandb" in options.trackers and accelerator.is_main_process:
        given["wandb"] = {"name": name, "id": _wandb_id(run.folder), "resume": "allow", "dir": str(run.folder)}
    accelerator.init_trackers(
        options.tracking.project, config=hyper_parameters(run.recipe_yaml),
        init_kwargs={tracker: given[tracker] for tracker in options.trackers if tracker in given},
    )


def track_samples(accelerator: Accelerator, path: Path, *, step: int) -> None:
    """Send the grid of samples at `path` to every tracker that takes pictures."""
    with Image.open(path) as image:
        grid = image.convert("RGB")
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images({SAMPLES: np.asarray(grid)[None]}, step=step, dataformats="NHWC")
        elif hasattr(tracker, "log_images"):
            tracker.log_images({SAMPLES: [grid]}, step=step)


def hyper_parameters(recipe_yaml: str) -> dict[str, str | int | float | bool]:
    """The resolved recipe as dotted key -> value; what is no plain value, such as a list or null, as JSON."""
    flat: dict[str, str | int | float | bool] = {}

    def walk(value: Any, above: str) -> None:
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                walk(item, f"{above}.{key}" if above else str(key))
        else:
            flat[above] = value if isinstance(value, str | int | float | bool) else json.dumps(value)

    walk(yaml.safe_load(recipe_yaml), "")
    return flat


def _wandb_id(folder: Path) -> str:
    """The id of the run at W&B, made once: with it a resumed run goes on in the same curves."""
    path = folder / WANDB_ID
    if not path.exists():
        write_atomically(path, secrets.token_hex(4) + "\n")
    return path.read_text().strip()
