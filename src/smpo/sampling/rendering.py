"""From prompts and seeds to pixels."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from smpo.core.errors import DataError
from smpo.core.precision import float32_products
from smpo.sampling.contact_sheet import contact_sheet
from smpo.sampling.options import GenerationOptions

SMALLEST_PNG = 1024  # bytes, more than the header and metadata of a PNG
BLACK_SHARE = 0.03  # bytes a pixel, ten times the size of a compressed black pixel
Pipeline = Any
"""A text-to-image pipeline; diffusers has no common type that declares its call."""


def image_seed(seed: int, prompt_index: int, image_index: int) -> int:
    """The seed of one image's noise, in [0, 2^32): torch's CPU generator uses 32 bits of a seed."""
    return int(np.random.SeedSequence([seed, prompt_index, image_index]).generate_state(1)[0])


@float32_products(tf32=False)
def render(
    pipeline: Pipeline, prompts: Sequence[str], seeds: Sequence[int], *, options: GenerationOptions
) -> np.ndarray:
    """Pixels of one image per prompt and seed, shape (B, H, W, 3), uint8.

    An entirely black image is accepted here; `black_images` lists such images.

    Raises:
        DataError: an image has NaN or infinite pixels.
    """
    options = options.completed(type(pipeline))
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        prompt=list(prompts), generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        num_inference_steps=options.num_inference_steps, guidance_scale=options.guidance_scale, output_type="np",
    ).images  # (B, H, W, 3) in [0, 1]
    for prompt, seed, image in zip(prompts, seeds, images, strict=True):
        if not np.isfinite(image).all():
            raise DataError(
                f"the image of prompt {prompt!r} (seed {seed}) is non-finite; use dtype float32 or check the weights"
            )
    return (images * 255).round().astype(np.uint8)


def black_images(folder: Path, files: Iterable[str]) -> list[str]:
    """The entirely black PNG files of `folder`. Half precision can cause them, and some prompts ask for black.

    Only small files are decoded, because a black PNG has about a thousandth of its pixels' bytes.
    """
    black = []
    for file in files:
        with Image.open(folder / file) as image:  # reads only the header
            width, height = image.size
            is_small = (folder / file).stat().st_size < SMALLEST_PNG + width * height * BLACK_SHARE
            if is_small and not np.asarray(image).any():
                black.append(file)
    return black


def sample_grid(
    pipeline: Pipeline, prompts: Sequence[str], *, options: GenerationOptions | None = None, columns: int = 4
) -> Image.Image:
    """A contact sheet of one image per prompt, with the prompt below it.

    `generate_images` would make the same images. The pipeline keeps its device and dtype.
    """
    options = options or GenerationOptions(num_inference_steps=25)
    tiles = []
    for start in range(0, len(prompts), options.batch_size):
        batch = prompts[start : start + options.batch_size]
        seeds = [image_seed(options.seed, start + i, 0) for i in range(len(batch))]
        tiles += [Image.fromarray(pixels) for pixels in render(pipeline, batch, seeds, options=options)]
    return contact_sheet(tiles, prompts, columns=columns)
