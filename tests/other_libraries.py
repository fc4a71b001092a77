"""Environments with other versions of the libraries, beside the checkout's own, made once and kept.

torch is not installed again: it is linked from the environment that runs the tests.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
PACKAGES = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
LINKED = ("torch", "torchgen", "functorch", "torch-*.dist-info")
STAMP = "requirements.sha256"


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment `.venv-name` in the checkout that holds these and what they need."""
    folder = ROOT / f".venv-{name}"
    wanted = hashlib.sha256("\n".join([*sorted(requirements), torch.__version__, sys.version]).encode()).hexdigest()
    with open(ROOT / f".venv-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / STAMP
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, requirements)
            stamp.write_text(wanted)
    return folder / "bin" / "python"


def _make(folder: Path, requirements: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    ours = Path(torch.__file__).parent.parent
    for pattern in LINKED:
        for path in ours.glob(pattern):
            (folder / PACKAGES / path.name).symlink_to(path)
    pinned = [*requirements, f"torch=={torch.__version__.partition('+')[0]}"]
    subprocess.run(["nice", folder / "bin" / "python", "-m", "pip", "install", "--quiet", *pinned], check=True)


def run_in(python: Path, *arguments: str | Path, cwd: Path) -> str:
    """What a program of that environment prints; offline, on one thread, with this checkout's `src` to import."""
    settings = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [python, *map(str, arguments)], cwd=cwd, env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr
