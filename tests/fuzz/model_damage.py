"""A pipeline folder changed in one way, cached and trained with; and what an unharmed one gives."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.fuzz.case import Accepted, Case, Expectation, Made
from tests.fuzz.running import Result
from tests.fuzz.world import World

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n"
META = (
    "https://github.com/huggingface/diffusers/issues/8578"  # tensors that are missing: "Cannot copy out of meta tensor"
)
NEW = "https://github.com/thunlp/LLaVA-UHD/issues/27"  # "newly initialized" weights train on
HEADER = "https://github.com/huggingface/diffusers/issues/5520"  # "HeaderTooLarge" of a pointer file

Change = Callable[[Path], object]
Tensors = dict[str, Tensor]


def model_case(
    name: str,
    change: Change,
    expect: Expectation,
    *,
    url: str = "",
    family: str = "sd",
    named: str = "",
    train: bool = False,
) -> Case:
    """`smpo cache` (and `smpo train`) with a changed copy of a pipeline folder, over the finished run's pairs."""

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.copy_of_finished(cwd)
        folder = world.copy_of_model(cwd / "model", family=family)
        change(folder)
        given = [
            "paths.cache=new-cache",
            "paths.train=new-train",
            f"model.name={named or family}",
            f"model.source={folder}",
        ]
        return [[stage, "recipe.yaml", *given] for stage in (("cache", "train") if train else ("cache",))]

    return Case(f"model {name}", make, expect, url, limit_s=30)


def json_of(path: str, **changes: Any) -> Change:
    """Set keys of a JSON file; Ellipsis takes one out."""

    def change(folder: Path) -> None:
        content = {**json.loads((folder / path).read_text()), **changes}
        (folder / path).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return change


def bytes_of(path: str, content: bytes | Callable[[bytes], bytes]) -> Change:
    """Replace a file's bytes."""
    return lambda folder: (folder / path).write_bytes(
        content((folder / path).read_bytes()) if callable(content) else content
    )


def tensors_of(part: str, change: Callable[[Tensors], Tensors]) -> Change:
    """Replace the tensors of a part."""

    def apply(folder: Path) -> None:
        file = folder / part / WEIGHTS.get(part, "model.safetensors")
        save_file(
            {name: tensor.contiguous().clone() for name, tensor in change(load_file(file)).items()},
            file,
            {"format": "pt"},
        )

    return apply


def without(path: str) -> Change:
    """Delete a file or folder."""

    def change(folder: Path) -> None:
        place = folder / path
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()

    return change


def _same(made: Made, results: Sequence[Result]) -> list[str]:
    """The cache's blocks and the trained UNet are the finished run's."""
    wrong = []
    for old in (made.cwd / "runs/fz/cache").rglob("*.npy"):
        new = made.cwd / "new-cache" / old.relative_to(made.cwd / "runs/fz/cache")
        if not np.array_equal(np.load(old), np.load(new)):
            wrong.append(f"{new.name} differs from that of the undamaged folder")
    new, old = (
        load_file(made.cwd / place / "model/unet" / WEIGHTS["unet"]) for place in ("new-train", "runs/fz/train")
    )
    return wrong + ([] if all(torch.equal(old[name], new[name]) for name in old) else ["trained other weights"])


SAME = Accepted(_same)
