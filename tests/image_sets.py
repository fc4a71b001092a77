"""Image sets made with PIL and scorers that read their pixels: the real files, without a model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from smpo.core.artefacts import begin, finish, write_atomically
from smpo.evaluation.scores import evaluate_images
from smpo.sampling.image_set import ImageSet

NUM_PROMPTS = 40
WORDS = ("red", "green", "blue", "orange", "purple")


class Pixels:
    """Preprocessing: the pixels, shape (48, 48, 3), uint8."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image))

    def describe(self) -> dict[str, Any]:
        return {"version": "pixels"}


class Brightness:
    """Mean pixel, in 0 to 255; `sign` -1 makes it a reward for darkness."""

    units = "grey levels"
    bounds = (0.0, 255.0)
    preprocessing = Pixels()

    def __init__(self, name: str = "brightness", sign: float = 1.0) -> None:
        self.name, self.sign, self.calls = name, sign, 0

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "sign": self.sign}

    def score(self, inputs: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        self.calls += 1
        return torch.tensor([self.sign * float(pixels.numpy().mean()) for pixels in inputs])


class Verifier(Brightness):
    """Share of two attributes that are right: light, and square; the second only where the prompt says red."""

    def __init__(self) -> None:
        super().__init__("verifier")

    def verdicts(self, inputs: torch.Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        rows = [{"light": bool(pixels.numpy().mean() > 100)} for pixels in inputs]
        return [
            row | ({"square": pixels.shape[0] == pixels.shape[1]} if "red" in prompt else {})
            for row, pixels, prompt in zip(rows, inputs, prompts, strict=True)
        ]

    def score(self, inputs: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([sum(row.values()) / len(row) for row in self.verdicts(inputs, prompts)])


def make_image_set(
    folder: Path, *, light: float, prompts: Sequence[str] = (), per_prompt: int = 1, seed: int = 0
) -> ImageSet:
    """A complete image set of discs on a ground whose brightness scatters around `light`."""
    prompts = prompts or [f"a {WORDS[i % 5]} disc, number {i}" for i in range(NUM_PROMPTS)]
    settings = {"options": {"images_per_prompt": per_prompt}, "light": light}
    begin(folder, stage="generate", settings=settings, inputs={})
    (folder / "images").mkdir(exist_ok=True)
    rows = []
    for i in range(len(prompts) * per_prompt):
        ground = int(np.clip(np.random.default_rng([i, int(light)]).normal(light, 25), 0, 255))
        image = Image.new("RGB", (48, 48), (ground, ground, ground))
        ImageDraw.Draw(image).ellipse((14, 14, 34, 34), fill=WORDS[i % 5])
        image.save(folder / f"images/{i:05d}.png")
        rows.append({"index": i, "prompt": prompts[i // per_prompt], "seed": seed + i, "file": f"images/{i:05d}.png"})
    write_atomically(folder / "images.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    finish(folder, {"num_images": len(rows)}, files=["images.jsonl", *(row["file"] for row in rows)])
    return ImageSet.open(folder)


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageSet]:
    """base, twin (the same images) and lighter."""
    root = tmp_path_factory.mktemp("image-sets")
    grounds = {"base": 100, "twin": 100, "lighter": 130}
    return {name: make_image_set(root / name, light=light) for name, light in grounds.items()}


@pytest.fixture(scope="session")
def evaluations(sets: dict[str, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scores of the three sets: brightness rises, darkness falls by as much, the verifier reads attributes."""
    root = tmp_path_factory.mktemp("evaluations")
    scorers = {"brightness": Brightness(), "darkness": Brightness("darkness", -1.0), "verifier": Verifier()}
    for name, images in sets.items():
        evaluate_images(images, scorers, root / name)
    return {name: root / name for name in sets}
