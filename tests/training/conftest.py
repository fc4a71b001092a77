"""A small pair set on disk, labelled and cached for the random pipelines through the real stages."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from smpo.data.pair_set import PairSet
from smpo.labels import LABELS
from smpo.models import FAMILIES
from smpo.preparation.cache import cache_pairs
from smpo.preparation.label import label_pairs
from smpo.preparation.options import CacheOptions
from smpo.preparation.pairs import prepare_pairs
from smpo.training.run import Run
from tests.tiny_pipelines import unet
from tests.training.outcomes import QUICK
from tests.training.runs import make_run

NUM_PAIRS = 10


def write_jsonl_pairs(folder: Path, *, count: int = NUM_PAIRS, size: tuple[int, int] = (40, 32)) -> Path:
    """A jsonl pair set of smooth random images with `chosen` and `rejected`; every prompt occurs twice."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(0)
    lines = []
    for number in range(count):
        for side in ("chosen", "rejected"):
            coarse = (torch.rand(4, 4, 3, generator=draw) * 255).byte().numpy()
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}-{side}.png")
        row = {"prompt": f"thing {number // 2}", "chosen": f"{number}-chosen.png", "rejected": f"{number}-rejected.png"}
        lines.append(json.dumps(row))
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder / "pairs.jsonl"


def prepare(root: Path, source: Path, model: Path, family: str) -> Path:
    """`root`, holding pairs, label and cache artefacts."""
    prepare_pairs(str(source), root / "pairs")
    pairs = PairSet.open(root / "pairs")
    label_pairs(pairs, {}, LABELS.build({"name": "hard"}), root / "label")
    built = FAMILIES.build({"name": family, "source": str(model)})
    cache_pairs(pairs, built, root / "cache", options=CacheOptions(resolution=32))
    return root


@pytest.fixture(scope="session")
def sd_artefacts(tmp_path_factory: pytest.TempPathFactory, random_sd: Path) -> Path:
    """Artefacts of ten pairs for the random SD pipeline."""
    root = tmp_path_factory.mktemp("sd")
    return prepare(root, write_jsonl_pairs(root / "source"), random_sd, "sd")


@pytest.fixture(scope="session")
def sdxl_artefacts(tmp_path_factory: pytest.TempPathFactory, random_sdxl: Path) -> Path:
    """Artefacts of ten pairs for the random SDXL pipeline."""
    root = tmp_path_factory.mktemp("sdxl")
    return prepare(root, write_jsonl_pairs(root / "source"), random_sdxl, "sdxl")


@pytest.fixture
def new_run(sd_artefacts: Path, random_sd: Path, tmp_path: Path) -> Callable[..., Run]:
    """Makes quick runs in folders of these names."""

    def make(name: str, **changes: Any) -> Run:
        return make_run(sd_artefacts, tmp_path / name, random_sd, **{**QUICK, **changes})

    return make


@pytest.fixture(scope="session")
def other_unet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a UNet alone, of other weights than the pipeline's, that has dropout."""
    folder = tmp_path_factory.mktemp("unet")
    torch.manual_seed(7)
    unet(dropout=0.5).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def updates() -> Iterator[list[dict[str, float]]]:
    """Learning rate and gradient norm at every optimizer step, as the optimizer sees them."""
    seen: list[dict[str, float]] = []

    def spy(optimizer: Optimizer, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        seen.append({"lr": optimizer.param_groups[0]["lr"], "norm": float(norm)})

    handle = register_optimizer_step_pre_hook(spy)
    yield seen
    handle.remove()
