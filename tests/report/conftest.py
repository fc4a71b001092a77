"""A comparison of the image sets of tests/image_sets.py, and metrics of a training run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from smpo.evaluation.compare import Comparison, compare
from tests.image_sets import evaluations, sets

__all__ = ["evaluations", "sets"]


@pytest.fixture(scope="session", autouse=True)
def coarse_figures() -> Iterator[None]:
    """A quarter of the pixels: figures are most of these tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smpo.report.theme.DPI", 80)
        yield


@pytest.fixture(scope="session")
def comparison(evaluations: dict[str, Path]) -> Comparison:
    return compare(evaluations, "base", training_reward="brightness")


@pytest.fixture(scope="session")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    rows = ({"step": i, "loss": 0.7 - 0.001 * i, "implicit_accuracy": 0.5 + 0.002 * i, "logit_mean": 0.01 * i,
             "logit_std": 0.5, "error_delta_w": -1e-4 * i, "error_delta_l": 1e-4 * i, "grad_norm": 0.3, "lr": 1e-5,
             "examples_per_s": 40.0} for i in range(1, 61))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
