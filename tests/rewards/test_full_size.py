"""Full ViT-H/14, BLIP-L and ViT-L/14 with random weights: loaded from the published layout and scored once.

A few minutes, 5 GiB of memory and up to 4 GB of disk each; never two at once.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_GIB = 5.0


def step(*arguments: str) -> dict[str, float]:
    """What a step prints; its process's peak of memory is that of loading and scoring alone."""
    command = [sys.executable, "-m", "tests.rewards.full_size", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hpsv2", "imagereward", "aesthetic"])
def test_full_size(name: str, tmp_path: Path):
    expected = step("make", name, str(tmp_path))["expected"]
    found = step("score", name, str(tmp_path), "float32")
    shutil.rmtree(tmp_path)
    assert found["score"] == pytest.approx(expected, rel=1e-5)
    assert found["peak_gib"] < MAX_GIB
