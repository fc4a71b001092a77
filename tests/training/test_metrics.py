"""Means over micro-batches, and the lines that are kept."""

import json
from pathlib import Path

import torch

from smpo.training.metrics import MeanTable, MetricsLog


def test_micro_batches_add_up_and_what_counts_nothing_is_left_out() -> None:
    table = MeanTable()
    for total, count in ((3.0, 2.0), (5.0, 2.0)):
        zero = torch.tensor(0.0)
        table.add({"loss": (torch.tensor(total), torch.tensor(count)), "nothing": (zero, zero)})
    assert table.sums.tolist() == [[8.0, 4.0], [0.0, 0.0]]
    assert table.means(2 * table.sums) == {"loss": 2.0}


def test_reopening_drops_later_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, resume_step=0)
    for step in range(1, 6):
        log.append({"step": step})
    with open(path, "a") as file:
        file.write('{"step": 2')
    MetricsLog(path, resume_step=3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
