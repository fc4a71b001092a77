"""`smpo cost` beside what a real run logs, writes and holds, on the CPU.

    python benchmarks/cost_check.py --out benchmarks/results

The run is tiny-demo's on the embedded model without mixed precision, as many steps as asked for; pairs are drawn first.
The peak is of a process of its own that trains only; what it holds before training is taken off. Last, that run's
metrics tell the seconds of another recipe (`smpo cost --measured`), random noise in place of inversion, which is then
trained as well.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from smpo.cost.estimate import counts_of, estimate
from smpo.cost.measured import measured_hours
from smpo.pipeline.config import Recipe, dump_recipe, load_recipe
from smpo.pipeline.stages import run_stage
from smpo.tiny.demo import write_prompts

TRAIN = """
import resource, sys
import torch
from smpo.pipeline.config import load_recipe
from smpo.models import FAMILIES
from smpo.pipeline.stages import run_stage, training_run
recipe = load_recipe(sys.argv[1])
training_run(recipe).family.load_denoiser()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run_stage("train", recipe, lambda *_: None)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""One thread; and glibc gives every large block back when it is freed, so that resident memory is that of tensors:
otherwise fragments of its heap make a third of the peak."""
MIB = 2**20


def measure(work: Path, *, pairs: int, steps: int) -> dict:
    """Estimated and measured numbers of one tiny run in `work`."""
    prompts = work / "prompts.txt"
    prompts.write_text("\n".join(write_prompts(work, seed=0).training.read_text().splitlines()[:pairs]) + "\n")
    changes = [
        f"paths.workdir={work}", f"sampling.prompts={prompts}", "sampling.num_inference_steps=2",
        "training.trackers=[]", f"training.steps={steps}", "training.batch_size=128", "noising.grid=fixed_stride",
    ]
    recipe = load_recipe("tiny-demo", changes)
    other = load_recipe("tiny-demo", [*changes[:-1], "noising.name=forward", f"paths.train={work / 'other'}"])
    for stage in ("sample", "pairs", "score", "label", "cache"):
        run_stage(stage, recipe, lambda *_: None)
    found = estimate(recipe, counts_of(recipe))
    before, peak = trained(recipe, work / "recipe.yaml")
    lines = metrics(recipe)
    trained(other, work / "other.yaml")
    seconds = measured_hours(other, estimate(other, counts_of(other)), recipe.folder("train")).training * 3600
    cache = sum(file.stat().st_size for file in recipe.folder("cache").rglob("*.npy"))
    unet = found.memory.policy
    return {
        "nfe_grad": [found.example.nfe_grad, sum(line["nfe_grad"] for line in lines) / steps],
        "nfe_no_grad": [found.example.nfe_no_grad, sum(line["nfe_no_grad"] for line in lines) / steps],
        "cache_bytes": [found.disk.latents + found.disk.prompts, cache],
        "training_memory_mib": [round((found.memory.peak - unet) / MIB, 1), round((peak - before) / 1024, 1)],
        "seconds_of_the_other_run": [
            round(seconds, 1), round(statistics.median(line["seconds"] for line in metrics(other)) * steps, 1)
        ],
    }


def trained(recipe: Recipe, file: Path) -> tuple[int, int]:
    """Train in a process of one thread; its memory before and at most, KiB."""
    file.write_text(dump_recipe(recipe))
    told = subprocess.run(
        [sys.executable, "-c", TRAIN, str(file)], capture_output=True, text=True, check=True,
        env={**os.environ, **ENVIRONMENT},
    ).stdout
    before, peak = map(int, told.split()[-2:])
    return before, peak


def metrics(recipe: Recipe) -> list[dict[str, float]]:
    """What its training logged."""
    return [json.loads(line) for line in (recipe.folder("train") / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6, help="three at least")
    parser.add_argument("--out", type=Path, help="folder for the JSON result")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = measure(Path(work), pairs=args.pairs, steps=args.steps)
    print(f"{'':26}{'estimated':>14}{'measured':>14}")
    for name, (estimated, measured) in rows.items():
        print(f"{name:26}{estimated:>14.6g}{measured:>14.6g}")
    about = {
        "pairs": args.pairs, "steps": args.steps, "torch": torch.__version__, "python": platform.python_version(),
        "device": platform.processor() or platform.machine(), "date": datetime.date.today().isoformat(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        content = {"estimated_and_measured": rows, **about}
        (args.out / "cost-check.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
