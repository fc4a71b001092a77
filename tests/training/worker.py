"""`python -m tests.training.worker TASK`: a run in a process of its own, as a user's command starts it."""

import json
import sys
from pathlib import Path
from typing import Any

from smpo.training.trainer import train
from tests.training.outcomes import die
from tests.training.runs import make_run


def main(task: dict[str, Any]) -> None:
    run = make_run(Path(task["artefacts"]), Path(task["folder"]), Path(task["model"]), **task["settings"])
    train(run, report=lambda metrics: die() if metrics["step"] == task["kill_after"] else None)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
