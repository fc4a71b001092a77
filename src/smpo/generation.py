"""Images from a pipeline and a list of prompts: one PNG per prompt and seed, and a table that says which is which.

The random numbers of an image depend on the seed, its prompt's index and its own index, and are drawn on the CPU:
neither the batch size, nor the device, nor an interruption changes what an image shows.
"""

import hashlib
import inspect
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import DiffusionPipeline
from PIL import Image

from smpo.artefacts import (
    Status,
    begin,
    fingerprint,
    fingerprint_of,
    finish,
    hash_file,
    write_atomically,
)
from smpo.checks import check_known, check_positive
from smpo.contact_sheet import contact_sheet
from smpo.errors import ConfigError, DataError
from smpo.image_set import STAGE, TABLE, ImageSet
from smpo.models.sources import resolve_source
from smpo.prompts import read_prompts

__all__ = [
    "GenerationOptions", "ImageSet", "ImageSetReport", "contact_sheet", "generate_images", "image_seed",
    "load_pipeline", "read_prompts", "render", "sample_grid",
]
DTYPES = ("float32", "float16", "bfloat16")
Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How images are made. `batch_size` and `device` change the speed; everything else changes the pixels.

    Attributes:
        num_inference_steps: steps of the pipeline's own scheduler.
        guidance_scale: classifier-free guidance; <= 1 switches it off.
        seed: with the prompt's and the image's index, determines the noise of each image.
        batch_size: images per call of the pipeline.
        dtype: float32, float16 or bfloat16.
        device: "auto" (CUDA where there is one, else CPU) or a torch device.
        images_per_prompt: images of each prompt, with different seeds.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    seed: int = 0
    batch_size: int = 8
    dtype: str = "float32"
    device: str = "auto"
    images_per_prompt: int = 1

    def __post_init__(self) -> None:
        """Check every value."""
        check_positive(
            num_inference_steps=self.num_inference_steps, batch_size=self.batch_size,
            images_per_prompt=self.images_per_prompt,
        )
        check_known(self.dtype, DTYPES, what="dtype")
        if self.guidance_scale < 0 or self.seed < 0:
            raise ConfigError(f"guidance_scale and seed must be >= 0, got {self.guidance_scale} and {self.seed}")

    def decisive(self) -> dict[str, Any]:
        """The options that determine pixels: what a folder of images is bound to."""
        names = ("num_inference_steps", "guidance_scale", "seed", "dtype", "images_per_prompt")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ImageSetReport:
    """What `generate_images` did: `num_made` of `num_images` in `seconds`; `skipped` says that all were there."""

    folder: Path
    num_images: int
    num_made: int
    skipped: bool
    seconds: float
    fingerprint: str


def generate_images(
    model: str, prompts: Sequence[str], out: Path, *, options: GenerationOptions, progress: Progress | None = None
) -> ImageSetReport:
    """The report of a complete image set in `out`; makes only the images that are not there yet.

    Args:
        model: diffusers pipeline folder, hub id, or `package://module/folder`.
        prompts: one or more texts.
        out: folder of the image set.
        options: how the images are made.
        progress: called after every batch.

    Raises:
        ConfigError: the model cannot be found.
        StaleError: `out` holds images of another model, other prompts or other options.
        DataError: an image came out non-finite or entirely black.
    """
    started = time.monotonic()
    if not prompts:
        raise DataError("no prompts were given; pass at least one")
    folder = _pipeline_folder(model)
    rows = _plan(prompts, options)
    settings = {
        "model": {"source": model, **_identity(folder)},
        "options": options.decisive(),
        "prompts": {"count": len(prompts), "sha256": fingerprint(list(prompts))},
    }
    status = begin(out, stage=STAGE, settings=settings, inputs={})
    missing = [] if status is Status.DONE else _missing(out, rows)
    if missing:
        _make(load_pipeline(model, options), missing, len(rows), out=out, options=options, progress=progress)
    if status is not Status.DONE:
        write_atomically(out / TABLE, "".join(json.dumps(row) + "\n" for row in rows))
        finish(out, {"num_images": len(rows), "pixels": _pixels_fingerprint(out, rows)})
    print_of = fingerprint_of(out, stage=STAGE)
    seconds = time.monotonic() - started
    return ImageSetReport(out, len(rows), len(missing), status is Status.DONE, seconds, print_of)


def load_pipeline(model: str, options: GenerationOptions) -> DiffusionPipeline:
    """The pipeline of `model` on its device, with its own scheduler, without safety checker, watermark and bars.

    A safety checker would put black images into the statistics, a watermark would change the scores.
    """
    folder = _pipeline_folder(model)
    kind = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"], DiffusionPipeline)
    accepted = inspect.signature(kind.__init__).parameters
    unwanted = {"safety_checker": None, "requires_safety_checker": False, "add_watermarker": False}
    extra = {name: value for name, value in unwanted.items() if name in accepted}
    with _without_bars():
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, options.dtype), **extra)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return pipeline.to(device)


def sample_grid(
    pipeline: Any, prompts: Sequence[str], *, options: GenerationOptions | None = None, columns: int = 4
) -> Image.Image:
    """A contact sheet of one image per prompt with the prompt below it, made by a pipeline that is already built.

    The images are those that `generate_images` would make; the pipeline's device and dtype are left as they are.
    """
    options = options or GenerationOptions(num_inference_steps=25)
    tiles = []
    for start in range(0, len(prompts), options.batch_size):
        batch = prompts[start : start + options.batch_size]
        seeds = [image_seed(options.seed, start + i, 0) for i in range(len(batch))]
        tiles += [Image.fromarray(pixels) for pixels in render(pipeline, batch, seeds, options=options)]
    return contact_sheet(tiles, prompts, columns=columns)


def image_seed(seed: int, prompt_index: int, image_index: int) -> int:
    """The seed of one image's noise, in [0, 2^32): torch's CPU generator uses no more bits than these."""
    return int(np.random.SeedSequence([seed, prompt_index, image_index]).generate_state(1)[0])


def render(pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], *, options: GenerationOptions) -> np.ndarray:
    """Pixels of one image per prompt and seed, shape (B, H, W, 3), uint8; DataError names a prompt that failed."""
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        prompt=list(prompts), generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        num_inference_steps=options.num_inference_steps, guidance_scale=options.guidance_scale, output_type="np",
    ).images  # (B, H, W, 3) in [0, 1]
    for prompt, seed, image in zip(prompts, seeds, images, strict=True):
        fault = "non-finite" if not np.isfinite(image).all() else "entirely black" if not image.any() else ""
        if fault:
            raise DataError(
                f"the image of prompt {prompt!r} (seed {seed}) is {fault}; use dtype float32 or check the weights"
            )
    return (images * 255).round().astype(np.uint8)


def _pipeline_folder(model: str) -> Path:
    """The local folder of `model`, fetched from the hub when it is an id."""
    folder = Path(resolve_source(model))
    if not folder.is_dir():
        try:
            folder = Path(DiffusionPipeline.download(str(folder)))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"model {model!r} is no folder and no hub id in reach ({reason}); correct it") from error
    if not (folder / "model_index.json").is_file():
        raise ConfigError(f"model {model!r} has no model_index.json; give the folder of a diffusers pipeline")
    return folder


def _identity(folder: Path) -> dict[str, str]:
    """SHA-256 of the denoiser's weights and of all component configs: what tells two models apart."""
    weights = [p for name in ("unet", "transformer") for p in sorted((folder / name).glob("*")) if _is_weights(p)]
    configs = sorted(p for p in folder.rglob("*.json") if p.is_file())
    return {
        name: hashlib.sha256("".join(f"{p.relative_to(folder)} {hash_file(p)}\n" for p in paths).encode()).hexdigest()
        for name, paths in (("weights", weights), ("configs", configs))
    }


def _is_weights(path: Path) -> bool:
    return path.suffix in (".safetensors", ".bin")


def _plan(prompts: Sequence[str], options: GenerationOptions) -> list[dict[str, Any]]:
    """One row of the table per image: prompts outside, images of a prompt inside."""
    places = ((p, i) for p in range(len(prompts)) for i in range(options.images_per_prompt))
    return [
        {"index": index, "prompt": prompts[p], "prompt_index": p, "image_index": i,
         "seed": image_seed(options.seed, p, i), "file": f"images/{index:05d}.png"}
        for index, (p, i) in enumerate(places)
    ]


def _missing(out: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without a file; a file is whole when it exists, and what a killed run left beside it is removed."""
    for leftover in (out / "images").glob("*.tmp-*"):
        leftover.unlink(missing_ok=True)
    return [row for row in rows if not (out / row["file"]).exists()]


def _make(
    pipeline: Any, rows: Sequence[dict[str, Any]], total: int, *, out: Path, options: GenerationOptions,
    progress: Progress | None,
) -> None:
    done = total - len(rows)
    for start in range(0, len(rows), options.batch_size):
        batch = rows[start : start + options.batch_size]
        pixels = render(pipeline, [r["prompt"] for r in batch], [r["seed"] for r in batch], options=options)
        for row, image in zip(batch, pixels, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            write_atomically(out / row["file"], buffer.getvalue())
        done += len(batch)
        if progress is not None:
            progress(done, total)


def _pixels_fingerprint(out: Path, rows: Sequence[dict[str, Any]]) -> str:
    return fingerprint([hash_file(out / row["file"]) for row in rows])


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
