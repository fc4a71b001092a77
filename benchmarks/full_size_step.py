"""One full SmPO optimizer step at real SD1.5 or SDXL size with random weights: does it fit, and in how much memory?

    python benchmarks/full_size_step.py sd15 --out benchmarks/results
    python benchmarks/full_size_step.py sdxl --latents 32 --dtype bfloat16

Random weights at true shapes give true memory and time. The UNets are built from the published configurations; no text
encoder or VAE takes part, since training reads their outputs from a cache.
"""

import argparse
import contextlib
import datetime
import functools
import json
import platform
import resource
import tempfile
import time
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from smpo.core.records import Conditioning, TrainingBatch
from smpo.cost.architecture import architecture_of
from smpo.models.sd import StableDiffusion
from smpo.models.sdxl import StableDiffusionXL
from smpo.noising.inversion import ReNoise
from smpo.objectives.smpo import SmPO
from smpo.training.learners.learner import Networks
from smpo.training.learners.preference import PreferenceLearner
from smpo.training.options import OptimizerOptions
from smpo.training.policy.optimizers import build_optimizer

PUBLISHED = {  # whose configurations come with the package
    "sd15": {"name": "sd", "source": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
    "sdxl": {"name": "sdxl", "source": "stabilityai/stable-diffusion-xl-base-1.0"},
}
GIB = 1 / 1024**2  # ru_maxrss counts KiB


def random_batch(latents: int, width: int, *, xl: bool) -> TrainingBatch:
    """One pair of random latents (2, 1, 4, latents, latents) with its conditioning."""
    tensors = {"hidden": torch.randn(2, 77, width)}
    if xl:
        tensors |= {"pooled": torch.randn(2, 1280), "time_ids": torch.full((2, 6), 8.0 * latents)}
    return TrainingBatch(
        x_0=torch.randn(2, 1, 4, latents, latents), timesteps=torch.tensor([500]), p_winner=torch.tensor([0.55]),
        conditioning=Conditioning(tensors), null_conditioning=Conditioning(tensors), seeds=torch.tensor([0]),
        ids=("random",),
    )


def measure(model: str, latents: int, *, steps: int, optimizer: str, dtype: str) -> dict:
    """Peak memory and time of one optimizer step of one pair; `dtype` is that of weights and gradients."""
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    xl = model == "sdxl"
    config = architecture_of(PUBLISHED[model]).config("unet")
    folder = tempfile.mkdtemp()
    schedule = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    schedule.save_pretrained(f"{folder}/scheduler")
    family = (StableDiffusionXL if xl else StableDiffusion)(source=folder)
    policy = UNet2DConditionModel.from_config(config)
    policy.enable_gradient_checkpointing()
    reference = UNet2DConditionModel.from_config(config)
    reference.load_state_dict(policy.state_dict())
    reference.requires_grad_(False).eval()
    torch.set_default_dtype(torch.float32)
    updates = build_optimizer(policy.parameters(), OptimizerOptions(name=optimizer, lr=1e-5))
    half = functools.partial(torch.autocast, "cpu", torch.bfloat16)
    precision = half if dtype == "bfloat16" else contextlib.nullcontext
    learner = PreferenceLearner(family, ReNoise(inversion_steps=steps), SmPO())
    networks = Networks(policy, policy, reference, precision)
    started = time.perf_counter()
    batch = random_batch(latents, config["cross_attention_dim"], xl=xl)
    output = learner.loss(learner.prepare(batch, networks), networks, lambda values: values)
    output.loss.mean().backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    updates.step()
    return {
        "model": model, "latents": latents, "inversion_steps": steps, "optimizer": optimizer, "dtype": dtype,
        "gradient_checkpointing": True, "parameters": sum(p.numel() for p in policy.parameters()),
        "loss": output.loss.item(), "error_w": output.sums["error_w"][0].item(), "grad_norm": norm.item(),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * GIB, 2),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(),
        "device": platform.processor() or platform.machine(), "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=("sd15", "sdxl"))
    parser.add_argument("--latents", type=int, help="side of the latents; default 64 (512 px) or 128 (1024 px)")
    parser.add_argument("--inversion-steps", type=int, default=9)
    parser.add_argument("--optimizer", choices=("adamw", "adafactor"), default="adafactor")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, help="folder for the JSON result")
    args = parser.parse_args()
    latents = args.latents or (128 if args.model == "sdxl" else 64)
    result = measure(args.model, latents, steps=args.inversion_steps, optimizer=args.optimizer, dtype=args.dtype)
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"full-size-step-{args.model}-{latents}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
