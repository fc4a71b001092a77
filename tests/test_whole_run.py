"""The embedded models through every stage, by the command line, in real processes."""

import json

import pytest
from diffusers import DiffusionPipeline

from smpo.tiny.prompts import sample_prompts
from tests.test_cli import smpo

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
    assert "0 images drawn" in again.stdout and ", 0 drawn" in again.stdout

    stale = smpo("train", recipe, *overrides, "objective.beta=1", cwd=tmp_path)
    assert stale.returncode == 1
    assert "objective.beta=2000.0 (now 1.0)" in stale.stderr
