"""What a run leaves behind, in a form that `==` compares bit for bit, and child processes that may be killed."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smpo.core.artefacts import hash_file
from smpo.training.run import Run

TIMINGS = ("examples_per_s", "seconds")
QUICK: dict[str, Any] = {"noising": {"name": "forward"}, "batch_size": 4, "micro_batch_size": 2, "steps": 7}
"""Seven steps of four of the ten pairs: epochs end in the middle of step 3 and after step 5."""


def metrics_of(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines]


def outcome(run: Run) -> dict[str, Any]:
    """Hashes of the result's weights and of every file of the last checkpoint, and the metrics."""
    last = run.checkpoints / f"step-{run.options.steps:08d}"
    files = [*sorted(last.iterdir()), *sorted((run.model_folder / "unet").iterdir())]
    return {"files": {file.name: hash_file(file) for file in files}, "metrics": metrics_of(run)}


def start_child(work: Callable[[], Any]) -> multiprocessing.Process:
    """A running forked process that does `work`; forked, because importing torch takes seconds."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def exit_code(work: Callable[[], Any]) -> int:
    """The exit code of a child process that does `work`; -9 when it was killed."""
    child = start_child(work)
    child.join(timeout=300)
    if child.is_alive():
        child.kill()
        child.join()
        raise AssertionError("the child process hangs")
    return child.exitcode


def die(*_: Any) -> None:
    """End this process as a power cut would: no handler, no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def flip_byte(path: Path, place: int = -1) -> None:
    """Change one bit of the byte at `place`."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
