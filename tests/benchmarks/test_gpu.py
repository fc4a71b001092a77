"""The GPU benchmark's code, on the CPU with tiny shapes and drawn weights."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_cases
from benchmarks.gpu_cases import Bench, alone, beside_released, pairs_a_step
from benchmarks.workload import Plan, accelerator_on, make_workload
from smpo.training.trainer import forget_precision

CPU = torch.device("cpu")
SMALL = (*pairs_a_step(1, 2), "training.gradient_checkpointing=false", "noising={name: forward}")


@pytest.fixture
def bench(tmp_path: Path):
    settings = ("training.mixed_precision=bf16", "training.workers=0")
    plan = Plan(tmp_path / "work", "tiny", CPU, drawn=True, settings=settings)
    forget_precision()  # of tests before
    yield Bench(make_workload(plan, pairs=2), accelerator_on(CPU, "bf16"), 1e9, 1, time.monotonic() + 1e6)
    forget_precision()


def test_a_case_has_its_rate_and_its_estimate_and_what_does_not_fit_is_told(bench, monkeypatch) -> None:
    """Random noise: 2 trained and 2 free images a pair, 8 forwards of work; a rate of 1 GFLOP/s is what is compared."""
    row = alone(bench, *SMALL)
    assert row["evaluations_a_pair"] == {"trained": 2, "free": 2}
    assert row["useful_tflop_a_pair"] == pytest.approx(8 * bench.work.unet_flops / 1e12)
    useful = row["useful_tflop_a_pair"] * 1e12 * row["pairs_per_s"]["median"]
    assert row["share_of_matmul"]["median"] == pytest.approx(useful / 1e9)
    assert row["estimated"]["tflop_a_pair"] == pytest.approx(row["useful_tflop_a_pair"])
    assert 0.01 < row["estimated"]["peak_gib"] < 1

    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(gpu_cases, "stepping", full)
    failed = [way(bench, *SMALL) for way in (alone, beside_released)]
    assert {row["failed"] for row in failed} == {"out of memory: CUDA out of memory. Tried to allocate 2 GiB."}
    table = gpu.table({"small": row, "large": failed[0]}, "case").splitlines()
    assert "out of memory" in table[3] and "failed" in table[0] and "estimated GiB" in table[0]


def test_no_case_starts_late(bench) -> None:
    late = Bench(bench.work, bench.accelerator, bench.matmul, 1, until=time.monotonic() - 1)
    assert alone(late, *SMALL) == beside_released(late, *SMALL) == gpu_cases.SKIPPED


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "tiny-sdxl"])
def test_the_whole_command_writes_every_section(model, tmp_path, monkeypatch, capsys) -> None:
    command = ["gpu", "--device", "cpu", "--model", model, "--quick", "--repetitions", "1", "--no-scoring"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path)])
    gpu.main()
    forget_precision()
    content = json.loads((tmp_path / f"gpu-{model}.json").read_text())
    assert set(content) == {"machine", "measured", "matmul", "matmul_after", *gpu.SECTIONS}
    assert "failed" not in json.dumps(content)
    assert abs(sum(content["profile"]["shares"].values()) - 1) < 0.01
    assert f"{model}, comparison" in capsys.readouterr().out
