"""`smpo sample`: two images a prompt from the model itself, as a pair set in the jsonl layout, not yet labelled."""

import json
from dataclasses import replace
from pathlib import Path

from smpo.artefacts import write_atomically
from smpo.generation import GenerationOptions, ImageSet, ImageSetReport, Progress, generate_images
from smpo.prompts import Source

PAIRS_FILE = "pairs.jsonl"


def sample_pairs(
    model: str, prompts: Source, out: Path, *, options: GenerationOptions, progress: Progress | None = None
) -> ImageSetReport:
    """The report of a complete set of image pairs in `out`, with `pairs.jsonl` beside it.

    Args:
        model: diffusers pipeline folder, hub id (may end in `@revision`), `package://module/folder` or single file.
        prompts: one pair each; see `smpo.prompts.read_prompts`.
        out: folder to write.
        options: how the images are made; two are made of each prompt.
        progress: called after every batch of images.
    """
    report = generate_images(model, prompts, out, options=replace(options, images_per_prompt=2), progress=progress)
    images = ImageSet.open(out)
    lines = [
        json.dumps({"prompt": images.prompts[i], "image_0": images.files[i], "image_1": images.files[i + 1]})
        for i in range(0, len(images), 2)
    ]
    write_atomically(out / PAIRS_FILE, "\n".join(lines) + "\n")
    return report
