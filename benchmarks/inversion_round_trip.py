"""How close the inversions come to latents from which the sampler returns: |x_0 - sample(invert(x_0))| on tiny-sd.

    python -m benchmarks.inversion_round_trip --out benchmarks/results/inversion-round-trip.json

Takes the latents of rendered scenes of the tiny world, inverts them to t and samples back with DDIM over the same
levels, conditional only. Writes the errors as JSON and prints the table of docs/inversion.md.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from examples.tiny_world.corpus import rendered, to_unit
from smpo.maths.inversion import Refine, inversion_levels, invert, renoise_every
from smpo.maths.path import GaussianPath
from smpo.models import FAMILIES
from smpo.models.parts import posterior_moments
from smpo.tiny.prompts import phrase

MODEL = "package://smpo.tiny/weights/tiny-sd"
TIMESTEPS, STEPS = (500, 900), (2, 4, 9)
Ask = Callable[[Tensor, Tensor, Tensor], Tensor]


def every(rounds: int, averaged: int = 1) -> Refine:
    """ReNoise at every step."""
    return lambda step: renoise_every(step, rounds=rounds, averaged=averaged)


WAYS: dict[str, dict[str, Any]] = {
    "`ddim`": {"refine": "none"},
    "`ddim`, target labels": {"refine": "none", "labels": "target"},
    "`renoise`, the paper's": {"refine": "final"},
    "mean of two, one label (`released`)": {"refine": "every_average"},
    "`heun`": {"refine": "heun"},
    "`midpoint`": {"refine": "midpoint"},
    "`renoise_every`": {"refine": every(1)},
    "`renoise_every`, averaged 2": {"refine": every(1, 2)},
    "`renoise_every`, 2 rounds": {"refine": every(2)},
    "`renoise_every`, 4 rounds": {"refine": every(4)},
}


@dataclass
class Counted:
    """tiny-sd as the maths asks it, with the number of images that it was asked about."""

    ask: Ask
    images: int = 0

    def __call__(self, x: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """The predicted noise."""
        self.images += len(x)
        return self.ask(x, labels, rows)


def setting(count: int, *, seed: int) -> tuple[Counted, Tensor, Tensor]:
    """The model with the scenes' prompts, their clean latents (count, 4, 8, 8) and the path."""
    family = FAMILIES.build({"name": "sd", "source": MODEL})
    scenes, images = rendered(count, seed=seed)
    rng = np.random.default_rng(seed)
    prompts = family.encode_prompts([phrase(scene, rng) for scene in scenes], torch.device("cpu"))
    given, unet = family.condition(prompts, torch.zeros(count, 6)), family.load_denoiser().eval()
    x_0, _ = posterior_moments(family.load_vae(), to_unit(images))
    model = Counted(lambda x, labels, rows: family.predict(unet, x, labels, given.rows(rows)))
    return model, x_0, family.path


def sampled(predict: Ask, x: Tensor, levels: Tensor, path: GaussianPath) -> Tensor:
    """DDIM from the last of `levels` (B, K + 1) down to the first, every prediction under the label it starts from."""
    rows = torch.arange(len(x))
    for near, far in reversed(list(zip(levels.T[:-1], levels.T[1:], strict=True))):
        x = path.transfer(x, predict(x, far, rows), far, near)
    return x


@torch.no_grad()
def measured(count: int, *, seed: int) -> list[dict[str, Any]]:
    """A row for each way, timestep and number of steps."""
    model, x_0, path = setting(count, seed=seed)
    rows = []
    for t in TIMESTEPS:
        for steps in STEPS:
            levels = inversion_levels(torch.full((count,), t), num_steps=steps, grid="subdivide")
            for way, options in WAYS.items():
                model.images = 0
                x_t = invert(model, x_0, levels, path=path, **options)
                evaluations = model.images / count
                error = sampled(model, x_t, levels, path) - x_0
                rows.append({
                    "way": way, "t": t, "steps": steps, "evaluations": evaluations,
                    "rms": round(error.square().mean().sqrt().item(), 5),
                    "mean_abs": round(error.abs().mean().item(), 5),
                })
    return rows


def table_of(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a way, RMS errors with evaluations an image."""
    columns = [(t, steps) for t in TIMESTEPS for steps in STEPS]
    found = {(row["way"], row["t"], row["steps"]): row for row in rows}
    head = " | ".join(f"t = {t}, {steps} steps" for t, steps in columns)
    lines = [f"| noising | {head} |", "| --- |" + " ---: |" * len(columns)]
    for way in WAYS:
        cells = [found[way, t, steps] for t, steps in columns]
        lines.append(f"| {way} | " + " | ".join(f"{c['rms']:.4f} ({c['evaluations']:.0f})" for c in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=32, help="latents")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = measured(args.count, seed=args.seed)
    content = {"torch": torch.__version__, "machine": platform.machine(), "count": args.count, "seed": args.seed}
    args.out.write_text(json.dumps({**content, "rows": rows}, indent=1) + "\n")
    print(table_of(rows))


if __name__ == "__main__":
    main()
