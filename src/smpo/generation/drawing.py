"""From prompts and seeds to pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from smpo.contact_sheet import contact_sheet
from smpo.errors import DataError
from smpo.generation.options import GenerationOptions


def image_seed(seed: int, prompt_index: int, image_index: int) -> int:
    """The seed of one image's noise, in [0, 2^32): torch's CPU generator uses no more bits than these."""
    return int(np.random.SeedSequence([seed, prompt_index, image_index]).generate_state(1)[0])


def render(pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], *, options: GenerationOptions) -> np.ndarray:
    """Pixels of one image per prompt and seed, shape (B, H, W, 3), uint8; DataError names a prompt that failed."""
    options = options.completed(type(pipeline))
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
