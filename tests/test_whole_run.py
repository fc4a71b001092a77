"""The embedded models through every stage, by the command line, in real processes."""

import json
import os
import subprocess
import sys

import pytest
from diffusers import DiffusionPipeline

from smpo.tiny.prompts import sample_prompts
from tests.cli.test_app import smpo
from tests.ranks import free_port

SMALL = [
    "training.steps=2", "training.batch_size=4", "training.micro_batch_size=2", "training.optimizer.warmup_steps=0",
    "sampling.num_inference_steps=2", "generation.num_inference_steps=2", "training.trackers=[]", "objective.beta=2000",
]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["tiny-demo", "tiny-sdxl"])
def test_an_embedded_model_goes_from_prompts_to_a_report_and_opens_in_plain_diffusers(recipe, tmp_path):
    (tmp_path / "train.txt").write_text("\n".join(sample_prompts(6, seed=0, split="train")))
    (tmp_path / "test.txt").write_text("\n".join(sample_prompts(4, seed=0, split="heldout")))
    overrides = [*SMALL, "name=mine", "sampling.prompts=train.txt", "generation.prompts=test.txt"]
    first = smpo("run", recipe, *overrides, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    run = tmp_path / "runs" / "mine"
    pipeline = DiffusionPipeline.from_pretrained(run / "train" / "model")
    assert pipeline("a red boat", num_inference_steps=1).images[0].size == (64, 64)
    comparison = json.loads((run / "report" / "comparison.json").read_text())
    assert comparison["models"] == ["base", "mine"] and set(comparison["units"]) == {"reward", "clip", "verifier"}
    assert "data:image/png;base64," in (run / "report" / "report.html").read_text()

    again = smpo("run", recipe, *overrides, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "0 images generated" in again.stdout and ", 0 generated" in again.stdout

    stale = smpo("train", recipe, *overrides, "objective.beta=1", cwd=tmp_path)
    assert stale.returncode == 1
    assert "objective.beta=2000.0 (now 1.0)" in stale.stderr


@pytest.mark.slow
def test_two_processes_go_the_whole_way_and_find_what_one_drew_and_scored(tmp_path):
    """One process, then by torchrun a recipe with another training seed: the base is not drawn or scored again."""
    (tmp_path / "train.txt").write_text("\n".join(sample_prompts(6, seed=0, split="train")))
    (tmp_path / "test.txt").write_text("\n".join(sample_prompts(4, seed=0, split="heldout")))
    overrides = [*SMALL, "sampling.prompts=train.txt", "generation.prompts=test.txt", "generation.batch_size=2"]
    assert smpo("run", "tiny-demo", *overrides, "name=one", cwd=tmp_path).returncode == 0
    scores = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/store/scores").rglob("block-*")}
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port()),
         "-m", "smpo", "run", "tiny-demo", *overrides, "name=two", "seed=1"],
        capture_output=True, text=True, cwd=tmp_path, timeout=580, check=False,
        env={**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    assert process.returncode == 0, process.stderr
    assert "2 sets of 4 images in runs/store, 4 generated" in process.stdout
    assert process.stdout.count(" generate ") == 1
    stages = [json.loads(line)["stage"] for line in (tmp_path / "runs/two/stages.jsonl").read_text().splitlines()]
    assert stages == ["sample", "pairs", "score", "label", "cache", "train", "generate", "evaluate", "report"]
    assert all(path.stat().st_mtime_ns == written for path, written in scores.items())
    assert len(list((tmp_path / "runs/store/images").glob("*/manifest.json"))) == 3
    sample = [(tmp_path / f"runs/{name}/sample/images/00003.png").read_bytes() for name in ("one", "two")]
    assert sample[0] == sample[1]
