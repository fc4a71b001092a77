"""Sets of generated images on disk: PNG files and a table of their prompts and seeds."""

import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from smpo.core.artefacts import MANIFEST, Artefact
from smpo.core.errors import DataError
from smpo.core.seals import Seal, read_sealed

STAGE = "generate"
TABLE = "images.jsonl"
PIXELS = "pixels_in"
"""Key of a manifest's notes: the folder of the image set that holds the files, relative to the manifest's folder."""


@dataclass(frozen=True)
class ImageSet:
    """A complete folder of generated images; each tuple has one entry per image, in order.

    Attributes:
        folder: folder of the files: the artefact itself, or the stored set that it points to.
        prompts: prompt of each image.
        files: paths relative to `folder`.
        seeds: seed of each image's noise.
        images_per_prompt: how many consecutive images share a prompt.
        fingerprint: hash of the settings, the weights and the pixels.
        categories: category of each image's prompt; None where the prompt has none.
        challenges: challenge of each image's prompt (PartiPrompts); None where the prompt has none.
        pixels: the artefact that holds the files; every file is compared with its seal when it is read.
    """

    folder: Path
    prompts: tuple[str, ...]
    files: tuple[str, ...]
    seeds: tuple[int, ...]
    images_per_prompt: int
    fingerprint: str
    categories: tuple[str | None, ...]
    challenges: tuple[str | None, ...]
    pixels: Artefact = field(compare=False)

    @classmethod
    def open(cls, folder: Path) -> "ImageSet":
        """The image set in `folder`; DataError where it or its stored set is missing, unfinished or changed."""
        artefact = Artefact.open(folder, stage=STAGE)
        pixels = _pixels(artefact)
        rows = [json.loads(line) for line in artefact.read(TABLE).decode().splitlines()]
        return cls(
            pixels.folder, prompts=tuple(row["prompt"] for row in rows), files=tuple(row["file"] for row in rows),
            seeds=tuple(row["seed"] for row in rows),
            images_per_prompt=artefact.manifest["settings"]["options"]["images_per_prompt"],
            fingerprint=artefact.fingerprint, categories=tuple(row.get("category") for row in rows),
            challenges=tuple(row.get("challenge") for row in rows), pixels=pixels,
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def images(self, start: int = 0, stop: int | None = None) -> list[Image.Image]:
        """The RGB images `start` to `stop` (exclusive); DataError names a file that was changed."""
        return [read_image(self.data(index)) for index in range(len(self))[start:stop]]

    def data(self, index: int) -> "SealedImage":
        """File and seal of image `index`, for `read_image`."""
        file = self.files[index]
        return SealedImage(self.folder / file, self.pixels.seal(file))

    def check(self) -> None:
        """Read all files; DataError names one that was changed."""
        self.pixels.check()


@dataclass(frozen=True)
class SealedImage:
    """An image file and the seal that its bytes must match; it is sent to the processes that decode images."""

    path: Path
    seal: Seal


def _pixels(artefact: Artefact) -> Artefact:
    """The artefact that holds the files of the set; DataError where its folder is empty or holds other images now."""
    place = artefact.manifest["notes"].get(PIXELS)
    if place is None:
        return artefact
    stored = Path(os.path.normpath(artefact.folder / place))
    pixels = Artefact.open(stored, stage=STAGE) if (stored / MANIFEST).exists() else None
    if pixels is None or pixels.results != artefact.results:
        raise DataError(f"the images of {artefact.folder} are no longer in {stored}; run `smpo generate` again")
    return pixels


def read_image(data: SealedImage) -> Image.Image:
    """The RGB image of a file; DataError where the file is missing or changed."""
    cure = "delete this file and run `smpo generate` again"
    content, problem = read_sealed(data.path, data.seal)
    if problem is not None:
        raise DataError(f"{data.path} {problem}; {cure}")
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise DataError(f"{data.path} cannot be read ({error}); {cure}") from error
