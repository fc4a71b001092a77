"""Stage `score` stays within a fixed amount of memory, its worker processes included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.pictures import write_parquet
from tests.preparation.test_pairs_memory import large_row

SCORE = """
import re, sys, threading
from pathlib import Path
from smpo.data.pair_set import PairSet
from smpo.preparation.pairs import prepare_pairs
from smpo.preparation.score import score_pairs
from smpo.rewards.options import ScoringOptions
from tests.preparation.scorers import Brightness
def peak_mb(process="self"):
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path(f"/proc/{process}/status").read_text())[1]) // 1024
def workers():
    return [p for p in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()]
peaks = []
def score(source, out):
    prepare_pairs(source, Path(out + "/pairs"), workers=1)
    options = ScoringOptions(batch_size=8, workers=2, block_size=64)
    report = score_pairs(PairSet.open(out + "/pairs"), {"light": Brightness()}, Path(out + "/scores"), options=options,
                         progress=lambda *_: peaks.append(max(map(peak_mb, workers()), default=0)))
    return report.pairs
small, large, root = sys.argv[1:]
score(small, root + "/small")
before = peak_mb()
workers_before, peaks[:] = max(peaks), []
print(score(large, root + "/large"), peak_mb() - before, max(peaks) - workers_before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's peak memory counter")
def test_memory_is_bounded(tmp_path: Path):
    """300 MB of incompressible images, in six blocks of 47 MB, are scored in < 120 MB more than 7 MB of them."""
    for name, pairs in (("small", 10), ("large", 400)):
        rows = [large_row(index) for index in range(pairs)]
        write_parquet(tmp_path / f"{name}.parquet", rows, row_group_size=20, compression="none")
    command = [sys.executable, "-c", SCORE, *(str(tmp_path / name) for name in ("small.parquet", "large.parquet", ""))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path('src').resolve()}:{Path.cwd()}"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    pairs, growth_mb, worker_growth_mb = map(int, run.stdout.split())
    assert pairs == 400
    assert growth_mb < 120 and worker_growth_mb < 60
