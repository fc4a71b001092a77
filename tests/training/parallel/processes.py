"""Training on several processes: forked ones, and ones that a launcher starts."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, GradientState

from smpo.training.run import Run
from tests.ranks import free_port
from tests.training.outcomes import QUICK, start_child

ROOT = Path(__file__).parents[3]


def on_processes(work: Callable[[], Any], *, timeout: float = 120, processes: int = 2) -> list[int]:
    """The exit codes of two ranks, or as many as said, that do `work`."""
    size = str(processes)
    place = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def start(rank: int) -> Any:
        def ranked() -> None:
            os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank), ACCELERATE_USE_CPU="true")
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
            work()

        return start_child(ranked)

    children = [start(rank) for rank in range(processes)]
    for child in children:
        child.join(timeout=timeout)
    hanging = [child for child in children if child.is_alive()]
    for child in hanging:
        child.kill()
    assert not hanging, "a process hangs"
    return [child.exitcode for child in children]


def in_shell(
    launcher: list[str], artefacts: Path, run: Run, model: Path, settings: dict, kill_after: int | None = None
) -> int:
    """The exit code of `tests.training.worker` under `launcher`."""
    task = json.dumps({"artefacts": str(artefacts), "folder": str(run.folder), "model": str(model),
                       "settings": {**QUICK, **settings}, "kill_after": kill_after})
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [*launcher, "tests.training.worker", task]
    return subprocess.run(command, env=environment, cwd=ROOT, timeout=300, check=False).returncode
