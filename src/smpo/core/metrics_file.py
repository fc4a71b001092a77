"""Reading the metrics.jsonl of a training run."""

import json
from pathlib import Path

import numpy as np

from smpo.core.errors import DataError


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """The columns of a metrics.jsonl, each of shape (rows,); NaN where a row lacks the key.

    Where a step was logged twice, before and after a resumption, its last row counts.

    Raises:
        DataError: the file is missing, holds no rows, or a line is not a JSON object with a step.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; correct the path or train first")
    by_step: dict[int, dict[str, float]] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            by_step[int(row["step"])] = row
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: expected an object with a step ({error}); delete the line") from error
    if not by_step:
        raise DataError(f"{path} holds no metrics; train for at least one logging interval")
    rows = [by_step[step] for step in sorted(by_step)]
    keys = {"step"} | {key for row in rows for key, value in row.items() if isinstance(value, int | float)}
    return {key: np.array([row.get(key, np.nan) for row in rows], dtype=np.float64) for key in keys}
