"""Which pipeline lies in a folder, and the pipeline itself."""

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline

from smpo.artefacts import hash_file
from smpo.generation.options import GenerationOptions
from smpo.models.sources import INDEX, local_pipeline
from smpo.processes import local_device

UNWANTED = {"safety_checker": None, "requires_safety_checker": False, "add_watermarker": False}
"""Parts left out: a safety checker would put black images into the statistics, a watermark would change the scores."""
SETTINGS = (".json", ".txt", ".model")  # configs and vocabularies


def pipeline_class(folder: Path) -> type:
    """The class that the pipeline in `folder` asks for."""
    return getattr(diffusers, _index(folder)["_class_name"], DiffusionPipeline)


def load_pipeline(model: str, options: GenerationOptions) -> DiffusionPipeline:
    """The pipeline of `model` on its device, with its own scheduler, without safety checker, watermark and bars."""
    folder = local_pipeline(model)
    accepted = inspect.signature(pipeline_class(folder).__init__).parameters
    extra = {name: value for name, value in UNWANTED.items() if name in accepted}
    with _without_bars():
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, options.dtype), **extra)
    return pipeline.to(local_device() if options.device == "auto" else options.device)


def identity(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights, configs and vocabularies of all parts that paint: what tells two models apart."""
    parts = sorted(name for name, about in _index(folder).items() if isinstance(about, list) and name not in UNWANTED)
    files = [path for part in parts for path in sorted((folder / part).rglob("*")) if path.is_file()]
    return {
        "class": _index(folder)["_class_name"],
        "weights": _digest(folder, _weights(files)),
        "configs": _digest(folder, [folder / INDEX, *(path for path in files if path.suffix in SETTINGS)]),
    }


def _index(folder: Path) -> dict:
    return json.loads((folder / INDEX).read_text())


def _weights(files: Iterable[Path]) -> list[Path]:
    """All weights, but of a part with safetensors these alone: diffusers reads a .bin only where there are none."""
    files = list(files)
    safe = {path.parent for path in files if path.suffix == ".safetensors"}
    return [p for p in files if p.suffix == ".safetensors" or (p.suffix == ".bin" and p.parent not in safe)]


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    lines = (f"{path.relative_to(folder)} {hash_file(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@contextmanager
def _without_bars() -> Iterator[None]:
    """Loading bars of diffusers and transformers off, and afterwards as they were."""
    loggers = [m.utils.logging for m in (diffusers, transformers) if m.utils.logging.is_progress_bar_enabled()]
    for logger in loggers:
        logger.disable_progress_bar()
    try:
        yield
    finally:
        for logger in loggers:
            logger.enable_progress_bar()
