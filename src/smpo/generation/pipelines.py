"""Which pipeline lies in a folder, and the pipeline itself."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from smpo.artefacts import hash_file
from smpo.generation.options import GenerationOptions
from smpo.models import FAMILIES
from smpo.models.fitting import family_name, index_of
from smpo.models.folders import Part
from smpo.models.sources import INDEX, local_pipeline
from smpo.processes import local_device

UNWANTED = {"safety_checker": None, "requires_safety_checker": False, "add_watermarker": False}
"""Parts left out: a safety checker would put black images into the statistics, a watermark would change the scores."""
SETTINGS = (".json", ".txt", ".model")  # configs and vocabularies


def pipeline_class(folder: Path) -> type:
    """The class of the pipeline in `folder`; ConfigError where it is of no family."""
    return getattr(diffusers, family_in(folder).pipeline_class)


def load_pipeline(model: str, options: GenerationOptions) -> DiffusionPipeline:
    """The pipeline of `model` on its device, with its own scheduler, without safety checker, watermark and bars.

    It is put together from parts that are proven when they are loaded, see `smpo.models.loading`.
    """
    family = family_in(local_pipeline(model))
    pipeline = family.pipeline(dtype=getattr(torch, options.dtype))
    return pipeline.to(local_device() if options.device == "auto" else options.device)


def family_in(folder: Path) -> Any:
    """The family whose pipeline lies in `folder`; ConfigError where it is of none."""
    found = index_of(folder)["_class_name"]
    name = family_name(found)
    if name is None:
        known = ", ".join(FAMILIES.resolve(name).pipeline_class for name in FAMILIES)
        raise Part(folder).error(f"it is a {found}; known: {known}", way_out="use another model")
    return FAMILIES.build({"name": name, "source": str(folder)})


def identity(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights, configs and vocabularies of all parts that paint: what tells two models apart."""
    parts = sorted(name for name, about in index_of(folder).items() if isinstance(about, list) and name not in UNWANTED)
    files = [path for part in parts for path in sorted((folder / part).rglob("*")) if path.is_file()]
    return {
        "class": index_of(folder)["_class_name"],
        "weights": _digest(folder, _weights(files)),
        "configs": _digest(folder, [folder / INDEX, *(path for path in files if path.suffix in SETTINGS)]),
    }


def _weights(files: Iterable[Path]) -> list[Path]:
    """All weights, but of a part with safetensors these alone: diffusers reads a .bin only where there are none."""
    files = list(files)
    safe = {path.parent for path in files if path.suffix == ".safetensors"}
    return [p for p in files if p.suffix == ".safetensors" or (p.suffix == ".bin" and p.parent not in safe)]


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    lines = (f"{path.relative_to(folder)} {hash_file(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
