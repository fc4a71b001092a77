"""Stage `sample`: generates two images per prompt with the model itself; they form an unlabelled jsonl pair set."""

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
    """Generate the image pairs and their table `pairs.jsonl` into `out`, and return the report.

    Args:
        model: diffusers pipeline folder, hub id (may end in `@revision`), `package://module/folder` or single file.
        prompts: a pair is made for each; see `smpo.prompts.read_prompts`.
        out: folder of the artefact.
        options: how the images are generated; there are always two per prompt.
        progress: called after every batch of images.
    """
    two = options.model_copy(update={"images_per_prompt": 2})
    report = generate_images(model, prompts, out, options=two, progress=progress, verb=VERB)
    write_atomically(out / PAIRS_FILE, _lines(ImageSet.open(out)))
    return report


def check_sampled(out: Path) -> None:
    """Read all files that `sample_pairs` wrote to `out`; DataError if one has changed."""
    images = ImageSet.open(out)
    images.pixels.check(verb=VERB)
    if not (out / PAIRS_FILE).is_file() or (out / PAIRS_FILE).read_text(errors="replace") != _lines(images):
        raise DataError(f"{out / PAIRS_FILE} is not what was written; run `smpo sample` again")


def _lines(images: ImageSet) -> str:
    """The content of `pairs.jsonl`: an object with prompt, image_0 and image_1 per line."""
    return "".join(
        json.dumps({"prompt": images.prompts[i], "image_0": images.files[i], "image_1": images.files[i + 1]}) + "\n"
        for i in range(0, len(images), 2)
    )
