"""Training material of the tiny models: rendered scenes, tensors of images, and the log that every training writes."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smpo.tiny.prompts import sample_scenes
from smpo.tiny.scenes import Scene, draw


def rendered(num: int, *, seed: int, split: str = "train") -> tuple[list[Scene], Tensor]:
    """`num` scenes of a split and their images, uint8 (num, 3, 64, 64)."""
    scenes = sample_scenes(num, seed=seed, split=split)
    rng = np.random.default_rng([seed, 2])
    pixels = np.stack([np.asarray(draw(scene, rng)) for scene in scenes])
    return scenes, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def to_unit(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1], same shape."""
    return images.float() / 127.5 - 1.0


def to_pil(images: Tensor) -> list[Image.Image]:
    """Images in [-1, 1], (B, 3, H, W), as RGB Pillow images."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]


def from_pil(images: Sequence[Image.Image]) -> Tensor:
    """RGB Pillow images of one size as uint8 (B, 3, H, W)."""
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images])).permute(0, 3, 1, 2)


def one_cycle(step: int, num_steps: int, *, warmup: int = 100) -> float:
    """Learning-rate factor in [0, 1]: linear warm-up, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, num_steps - warmup))))


class TrainingLog:
    """Appends one json line per call to a file: the step, the seconds since the start, and the named values."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="ascii")
        self._path = path
        self._start_s = time.monotonic()

    def __call__(self, step: int, **values: float) -> None:
        """Write one line; values are rounded to 5 digits."""
        line = {"step": step, "seconds": round(time.monotonic() - self._start_s, 1)}
        line |= {name: round(float(value), 5) for name, value in values.items()}
        with self._path.open("a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")
