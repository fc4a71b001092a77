"""A page to look through all prompts: every model's image side by side, sorted by score gap, filtered by category.

The page is one file. Thumbnails are WebP inside it (7 KB each for 1/f noise, which is harder than photographs: at most
45 MB for 1,632 prompts x 3 models), rows are built as they come into view, and a click opens the image itself where the
image set still lies beside the page.
"""

import base64
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from smpo.core.artefacts import write_atomically
from smpo.core.checks import check_known
from smpo.core.errors import DataError
from smpo.evaluation.scores import ImageScores
from smpo.report.tables import template_environment
from smpo.sampling.image_set import ImageSet, SealedImage, read_image

THUMBNAIL_PX = 160
QUALITY = 60
DIGITS = 4  # significant figures of a score

Evaluated = Mapping[str, tuple[ImageSet, ImageScores]]
"""Set -> its images and scores."""


def write_browser(
    path: Path, sets: Evaluated, *, baseline: str, model: str, categories: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """`path`, holding the page over all images of `sets`.

    Args:
        path: an .html file.
        sets: two or more evaluated sets of the same prompts and seeds.
        baseline: the set that gaps are measured against at first; the page can choose others.
        model: the set whose gap is shown at first.
        categories: of each image; empty where the prompts have none.
        progress: called with (images done, images).

    Raises:
        ConfigError: `baseline` or `model` is no set.
        DataError: the sets differ in prompts or seeds, or an image cannot be read.
    """
    for name, what in ((baseline, "baseline"), (model, "model")):
        check_known(name, sets, what=what)
    first, scores = sets[baseline]
    for name, (images, _) in sets.items():
        if (images.prompts, images.seeds) != (first.prompts, first.seeds):
            raise DataError(f"'{name}' and '{baseline}' differ in prompts or seeds; generate both alike")
    content = {
        "models": list(sets), "scorers": list(scores.scores),
        "rows": [_row(i, sets, categories, path.parent) for i in range(len(first))],
        "thumbnails": _thumbnails(sets, len(first), progress),
    }
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")  # no "</script>" inside a prompt
    view = {
        "data": data, "scorers": list(scores.scores), "models": list(sets), "baseline": baseline, "model": model,
        "categories": sorted(set(categories)), "count": len(first),
    }
    write_atomically(path, template_environment().get_template("browser.html.j2").render(view))
    return path


def _row(index: int, sets: Evaluated, categories: Sequence[str], page: Path) -> dict[str, Any]:
    """What the page knows of one prompt and seed: `s` is model by model, scorer by scorer."""
    first = next(iter(sets.values()))[0]
    return {
        "p": first.prompts[index], "c": categories[index] if categories else "", "e": first.seeds[index],
        "f": [os.path.relpath(images.folder / images.files[index], page) for images, _ in sets.values()],
        "s": [[float(f"{column[index]:.{DIGITS}g}") for column in table.scores.values()] for _, table in sets.values()],
    }


def _thumbnails(sets: Evaluated, count: int, progress: Callable[[int, int], None] | None) -> list[list[str]]:
    """Image by image, model by model: base64 of a WebP."""
    found = []
    for index in range(count):
        found.append([thumbnail(images.data(index)) for images, _ in sets.values()])
        if progress is not None:
            progress(index + 1, count)
    return found


def thumbnail(data: SealedImage) -> str:
    """Base64 of the image as WebP that fits THUMBNAIL_PX; lossless where it fits as it is."""
    picture, buffer = read_image(data), io.BytesIO()
    small = max(picture.size) <= THUMBNAIL_PX
    if not small:
        picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    picture.save(buffer, "WEBP", lossless=small, quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
