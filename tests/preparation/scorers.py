"""Scorers without weights, whose scores can be worked out by hand."""

import os
import signal
import sys
import zlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from smpo.data.pair_set import PairSet
from smpo.preparation.score import score_pairs


@dataclass
class Brightness:
    """Mean of the pixels in [0, 1], plus a thousandth that depends on the prompt's first letter."""

    calls: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    weights: str = "one"
    name: ClassVar[str] = "brightness"
    units: ClassVar[str] = "fraction"
    bounds: ClassVar[tuple[float, float]] = (0.0, 2.0)
    higher_is_better: ClassVar[bool] = True

    def __call__(self, images: list, prompts: list[str]) -> torch.Tensor:
        self.calls.append((len(images), tuple(prompts)))
        return torch.tensor([expected_score(image, prompt) for image, prompt in zip(images, prompts, strict=True)])

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "weights": self.weights}


@dataclass
class Killed(Brightness):
    """Kills its own process with SIGKILL in the third call."""

    def __call__(self, images: list, prompts: list[str]) -> torch.Tensor:
        if len(self.calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images, prompts)


def expected_score(image, prompt: str) -> float:
    return float(np.asarray(image, dtype=np.float64).mean() / 255 + zlib.crc32(prompt.encode()) % 1000 / 1e6)


if __name__ == "__main__":
    score_pairs(PairSet.open(sys.argv[1]), Killed(), sys.argv[2], batch_size=4, block_size=2)
