"""Sets of generated images as they lie on disk: PNG files and a table of their prompts and seeds."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from smpo.artefacts import MANIFEST, fingerprint_of, read_manifest
from smpo.errors import DataError

STAGE = "generate"
TABLE = "images.jsonl"
REQUIRED = ("prompt", "file", "seed")  # columns of the table
PIXELS = "pixels_in"
"""Note of a manifest: the folder, relative to its own, of the complete image set that holds the files."""


@dataclass(frozen=True)
class ImageSet:
    """A complete folder of generated images, one entry of each tuple per image, in order.

    Attributes:
        folder: what `files` are relative to: the artefact, or the stored set that it points to.
        prompts: what each image was asked to show.
        files: paths relative to `folder`.
        seeds: seed of each image's noise.
        images_per_prompt: consecutive images that share a prompt.
        fingerprint: of the settings, the weights and the pixels.
        categories: of each image's prompt; None where it has none.
        challenges: likewise.
    """

    folder: Path
    prompts: tuple[str, ...]
    files: tuple[str, ...]
    seeds: tuple[int, ...]
    images_per_prompt: int
    fingerprint: str
    categories: tuple[str | None, ...]
    challenges: tuple[str | None, ...]

    @classmethod
    def open(cls, folder: Path) -> "ImageSet":
        """The image set in `folder`; DataError when it, or what it points to, is missing, unfinished or other."""
        manifest = read_manifest(folder, stage=STAGE)
        rows = [json.loads(line) for line in (folder / TABLE).read_text().splitlines()]
        columns = {key: tuple(row.get(key) for row in rows) for key in (*REQUIRED, "category", "challenge")}
        return cls(
            _pixel_folder(folder, manifest), *(columns[key] for key in REQUIRED),
            images_per_prompt=manifest["settings"]["options"]["images_per_prompt"],
            fingerprint=fingerprint_of(folder, stage=STAGE), categories=columns["category"],
            challenges=columns["challenge"],
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def images(self, start: int = 0, stop: int | None = None) -> list[Image.Image]:
        """The RGB images `start` to `stop` (exclusive); DataError names a file that cannot be read."""
        return [read_image(self.folder / file) for file in self.files[start:stop]]


def _pixel_folder(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """Where the files of the set lie; DataError when other images, or none, lie there now."""
    place = manifest.get("notes", {}).get(PIXELS)
    if place is None:
        return folder
    stored = Path(os.path.normpath(folder / place))
    whole = (stored / MANIFEST).exists() and read_manifest(stored, stage=STAGE)["results"] == manifest["results"]
    if not whole:
        raise DataError(f"the images of {folder} are no longer in {stored}; run `smpo generate` again")
    return stored


def read_image(path: Path) -> Image.Image:
    """The RGB image in `path`; DataError when it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete the folder and run `smpo generate` again") from error
