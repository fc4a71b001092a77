"""Stage `pairs` and the streaming of its images stay within a fixed amount of memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.pictures import encoded, good_row, picture, write_parquet

STREAM = """
import re, sys
from pathlib import Path
from smpo.data.pair_set import PairSet
from smpo.preparation.pairs import prepare_pairs
def peak_mb():  # not ru_maxrss, which a child inherits from the process that started it
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
def stream(source, out):
    kept = prepare_pairs(source, Path(out), workers=2).kept
    return kept, sum(len(pair.image_0) + len(pair.image_1) for pair in PairSet.open(out).iter_images())
small, large, root = sys.argv[1:]
stream(small, root + "/small")  # loads what is loaded on first use: codecs, allocators
before = peak_mb()
print(*stream(large, root + "/large"), peak_mb() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's peak memory counter")
def test_memory_is_bounded(tmp_path: Path):
    """300 MB of incompressible images (400 pairs of 0.37 MB bitmaps) in row groups of 15 MB stream in < 120 MB."""
    small = write_parquet(tmp_path / "small.parquet", [good_row(index) for index in range(10)])
    large = write_parquet(tmp_path / "large.parquet", [large_row(index) for index in range(400)], row_group_size=20,
                          compression="none")
    command = [sys.executable, "-c", STREAM, str(small), str(large), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr
    kept, total_bytes, growth_mb = map(int, run.stdout.split())
    assert kept == 400 and total_bytes > 290e6
    assert growth_mb < 120


def large_row(index: int) -> dict:
    bitmaps = [encoded(picture(2 * index + side, (350, 350)), "BMP") for side in (0, 1)]
    return {"caption": "x", "jpg_0": bitmaps[0], "jpg_1": bitmaps[1], "label_0": 1.0, "ranking_id": index}
