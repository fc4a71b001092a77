"""The metrics.jsonl of a run, resumed or broken."""

from pathlib import Path

import numpy as np
import pytest

from smpo.core.errors import DataError
from smpo.core.metrics_file import read_metrics


def test_metrics_of_a_resumed_run_count_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 2, "loss": 1, "lr": 0.5}\n')
    columns = read_metrics(path)
    assert list(columns["step"]) == [1, 2] and list(columns["loss"]) == [3, 1]
    assert np.isnan(columns["lr"][0]) and columns["lr"][1] == 0.5
    path.write_text('{"step": 1}\n{"loss": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: expected an object with a step .*; delete the line"):
        read_metrics(path)
    path.write_text("")
    with pytest.raises(DataError, match="holds no metrics; train for at least one logging interval"):
        read_metrics(path)
