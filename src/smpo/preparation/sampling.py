"""`smpo sample`: two images a prompt from the model itself, as a pair set in the jsonl layout, not yet labelled."""

import json
from pathlib import Path

from smpo.core.artefacts import write_atomically
from smpo.core.errors import DataError
from smpo.prompts import Source
from smpo.sampling.image_set import ImageSet
from smpo.sampling.options import GenerationOptions
from smpo.sampling.sets import ImageSetReport, Progress, generate_images

PAIRS_FILE, VERB = "pairs.jsonl", "sample"


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
    two = options.model_copy(update={"images_per_prompt": 2})
    report = generate_images(model, prompts, out, options=two, progress=progress, verb=VERB)
    write_atomically(out / PAIRS_FILE, _lines(ImageSet.open(out)))
    return report


def check_sampled(out: Path) -> None:
    """DataError unless the pairs and images that `sample_pairs` wrote to `out` are what it wrote; all are read."""
    images = ImageSet.open(out)
    images.pixels.check(verb=VERB)
    if not (out / PAIRS_FILE).is_file() or (out / PAIRS_FILE).read_text(errors="replace") != _lines(images):
        raise DataError(f"{out / PAIRS_FILE} is not what was written; run `smpo sample` again")


def _lines(images: ImageSet) -> str:
    """The pair set in the jsonl layout."""
    return "".join(
        json.dumps({"prompt": images.prompts[i], "image_0": images.files[i], "image_1": images.files[i + 1]}) + "\n"
        for i in range(0, len(images), 2)
    )
