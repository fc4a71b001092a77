"""Scorers without weights, whose scores can be worked out by hand."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class MeanPixel:
    """Preprocessing: the mean of the pixels in [0, 1], a tensor without axes."""

    def __call__(self, image: Image.Image) -> Tensor:
        return torch.tensor(np.asarray(image, dtype=np.float64).mean() / 255)

    def describe(self) -> dict[str, Any]:
        return {"version": "mean pixel"}


@dataclass
class Brightness:
    """Mean of the pixels in [0, 1], plus a thousandth that depends on the prompt."""

    calls: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    weights: str = "one"
    sign: float = 1.0
    preprocessing: Any = MeanPixel()
    name: ClassVar[str] = "brightness"
    units: ClassVar[str] = "fraction"
    bounds: ClassVar[tuple[float, float]] = (0.0, 2.0)
    higher_is_better: ClassVar[bool] = True

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls.append((len(inputs), tuple(prompts)))
        offsets = torch.tensor([offset(prompt) for prompt in prompts], dtype=torch.float64)
        return (self.sign * (inputs + offsets)).float()

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return self.score(torch.stack([self.preprocessing(image) for image in images]), prompts)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "weights": self.weights}


def offset(prompt: str) -> float:
    return zlib.crc32(prompt.encode()) % 1000 / 1e6


def expected_score(image: Image.Image, prompt: str) -> float:
    return float(np.asarray(image, dtype=np.float64).mean() / 255 + offset(prompt))
