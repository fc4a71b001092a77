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

SMALLEST_PNG = 1024  # bytes, more than a PNG of one colour has beside its pixels
BLACK_SHARE = 0.03  # bytes a pixel, ten times what zlib makes of three zeros a pixel


def image_seed(seed: int, prompt_index: int, image_index: int) -> int:
    """The seed of one image's noise, in [0, 2^32): torch's CPU generator uses no more bits than these."""
    return int(np.random.SeedSequence([seed, prompt_index, image_index]).generate_state(1)[0])


@float32_products(tf32=False)
def render(pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], *, options: GenerationOptions) -> np.ndarray:
    """Pixels of one image per prompt and seed, shape (B, H, W, 3), uint8; DataError names one with NaN or infinities.

    An entirely black image is an image: `black_images` counts them.
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
    """Those PNG files of `folder` that are entirely black: a model in half precision, or a prompt, may make one.

    Only files that are small enough are opened: a black PNG has a thousandth of its pixels' bytes.
    """
    found = []
    for file in files:
        with Image.open(folder / file) as image:  # reads the header alone
            width, height = image.size
            may_be = (folder / file).stat().st_size < SMALLEST_PNG + width * height * BLACK_SHARE
            if may_be and not np.asarray(image).any():
                found.append(file)
    return found


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
