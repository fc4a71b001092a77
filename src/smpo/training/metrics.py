"""What a run reports at each optimizer step: named means over all examples, and their file metrics.jsonl."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smpo.core.artefacts import write_atomically
from smpo.training.learners.learner import Sums


class MeanTable:
    """Sums and counts of the metrics of an optimizer step, over its micro-batches, where the loss is.

    Every micro-batch and every process names the same metrics in the same order.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []

    def add(self, sums: Sums) -> None:
        """Add a micro-batch's."""
        self.names = tuple(sums)
        self._rows.append(torch.stack([torch.stack(pair) for pair in sums.values()]))

    @property
    def sums(self) -> Tensor:
        """Sum and count of each metric over the micro-batches, shape (n, 2)."""
        return functools.reduce(torch.add, self._rows)

    def means(self, sums: Tensor) -> dict[str, float]:
        """The mean of each metric from its sum and count, shape (n, 2); a metric without a count is left out."""
        return {name: total / count for name, (total, count) in zip(self.names, sums.tolist(), strict=True) if count}


class MetricsLog:
    """Appends one JSON object a line; opening it for a resumed run drops the lines after the checkpoint's step."""

    def __init__(self, path: Path, *, resume_step: int) -> None:
        self.path = path
        kept = []
        if path.exists():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= resume_step]
        write_atomically(path, "".join(line + "\n" for line in kept))

    def append(self, values: Mapping[str, Any]) -> None:
        """Write one line, through to the operating system."""
        with open(self.path, "a") as file:
            file.write(json.dumps(values) + "\n")
