"""Real processes without a terminal, real signals: what is printed, where, and what is left on disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = (
    "training.steps=5000", "training.batch_size=4", "training.micro_batch_size=4", "training.checkpoint_every=10000",
    "training.trackers=[]", "training.workers=1", "sampling.limit=8", "sampling.num_inference_steps=1",
    "generation.limit=4", "scoring.workers=1",
)


class Started:
    """`smpo ...` in a process group of its own, its outputs in files."""

    def __init__(self, folder: Path, *arguments: str, interval: str = "1") -> None:
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        with open(self.out, "w") as out, open(self.err, "w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "smpo", *arguments], stdout=out, stderr=err, cwd=folder, start_new_session=True,
                env={**os.environ, "SMPO_PROGRESS_SECONDS": interval, "OMP_NUM_THREADS": "1"},
            )

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 400
        while text not in self.err.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.05)

    def press(self, number: int = signal.SIGINT) -> None:
        """Signal the whole group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self) -> tuple[int, list[str]]:
        code = self.process.wait(timeout=400)
        return code, self.err.read_text().splitlines()


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_the_same_command_goes_on(tmp_path: Path) -> None:
    run = ("run", "tiny-demo", "paths.workdir=w[/a]", *SMALL)
    first = Started(tmp_path, *run)
    first.wait_for("/5000 steps, ")
    first.press()
    code, lines = first.end()
    assert code == 130 and not [line for line in lines if "Traceback" in line]
    (saved,) = (tmp_path / "w[" / "a]" / "train" / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step-"))
    assert lines[-1] == f"saved at step {step}; run the same command to go on"
    assert "sample: started" in lines and any(line.startswith("cache: done after ") for line in lines)
    assert "\x1b" not in first.out.read_text() + first.err.read_text()
    assert [line.split()[0] for line in first.out.read_text().splitlines() if " s  " in line] == [
        "sample", "pairs", "score", "label", "cache"
    ]
    again = Started(tmp_path, *run)
    again.wait_for("/5000 steps, ")
    again.press(signal.SIGTERM)
    code, lines = again.end()
    later = int(lines[-1].removeprefix("saved at step ").partition(";")[0])
    assert code == 75 and later > step


@pytest.mark.slow
def test_ctrl_c_elsewhere_stops_at_once_with_one_line(tmp_path: Path) -> None:
    started = Started(tmp_path, "run", "tiny-demo", "sampling.limit=400")
    started.wait_for("sample: started")
    started.press()
    code, lines = started.end()
    assert code == 130 and lines[-1] == "stopped; run the same command to go on"
    assert not [line for line in lines if "Traceback" in line]


@pytest.mark.slow
def test_a_sweep_says_how_far_its_runs_are_and_ends_them_on_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("name: two\nrecipe: tiny-study\nseeds: [3]\nrows: {\"a [/b]\": {}}\n")
    started = Started(tmp_path, "sweep", "two.yaml", *SMALL)
    started.wait_for("[seed 3, a [/b]] train: ")
    started.wait_for("/5000 steps")
    started.press()
    code, lines = started.end()
    assert code == 130 and not [line for line in lines if "Traceback" in line]
    assert lines[-1].endswith("run the same command to go on")
