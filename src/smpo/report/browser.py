"""A page over all prompts: the images of all models side by side, sorted by score gap, filtered by category.

The page is one file with WebP thumbnails inside. A thumbnail of 1/f noise takes 7 KB, and photographs compress better:
so 1,632 prompts x 3 models take at most 45 MB. Rows are built when they scroll into view. A click on a thumbnail opens
the full image, as long as the image set is where it was.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smpo.core.artefacts import write_atomically
from smpo.core.checks import check_known
from smpo.report.image_rows import Evaluated, check_same_prompts
from smpo.report.plots import webp_thumbnail
from smpo.report.tables import template_environment
from smpo.sampling.image_set import SealedImage, read_image

QUALITY = 60
DIGITS = 4  # significant figures of a score


def write_browser(
    path: Path, sets: Evaluated, *, baseline: str, model: str, categories: Sequence[str] = ()
) -> Path:
    """Write the page over all images of `sets` to `path`; returns `path`.

    Args:
        path: an .html file.
        sets: two or more evaluated sets of the same prompts and seeds.
        baseline: the set that gaps are measured against at first; the page has a menu for others.
        model: the set whose gap is shown at first.
        categories: category of each image; empty where the prompts have none.

    Raises:
        ConfigError: `baseline` or `model` is no set.
        DataError: the sets differ in prompts or seeds, or an image cannot be read.
    """
    for name, what in ((baseline, "baseline"), (model, "model")):
        check_known(name, sets, what=what)
    check_same_prompts(sets)
    first, scores = sets[baseline]
    content = {
        "models": list(sets), "scorers": list(scores.scores),
        "rows": [_row(i, sets, categories, path.parent) for i in range(len(first))],
        "thumbnails": [[_thumbnail(images.data(i)) for images, _ in sets.values()] for i in range(len(first))],
    }
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")  # no "</script>" inside a prompt
    view = {
        "data": data, "scorers": list(scores.scores), "models": list(sets), "baseline": baseline, "model": model,
        "categories": sorted(set(categories)), "count": len(first),
    }
    write_atomically(path, template_environment().get_template("browser.html.j2").render(view))
    return path


def _row(index: int, sets: Evaluated, categories: Sequence[str], page: Path) -> dict[str, Any]:
    """The page's data of one image: prompt, category, seed, files by model, scores by model and scorer."""
    first = next(iter(sets.values()))[0]
    return {
        "p": first.prompts[index], "c": categories[index] if categories else "", "e": first.seeds[index],
        "f": [os.path.relpath(images.folder / images.files[index], page) for images, _ in sets.values()],
        "s": [[float(f"{column[index]:.{DIGITS}g}") for column in table.scores.values()] for _, table in sets.values()],
    }


def _thumbnail(data: SealedImage) -> str:
    return webp_thumbnail(read_image(data), quality=QUALITY)
