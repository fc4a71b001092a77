"""Sets of generated images as they lie on disk: PNG files and a table of their prompts and seeds."""

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
        pixels: the artefact that holds the files, each of which is compared with its seal when it is read.
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
    pixels: Artefact = field(compare=False)

    @classmethod
    def open(cls, folder: Path) -> "ImageSet":
        """The image set in `folder`; DataError when it, or what it points to, is missing, unfinished or other."""
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
        """The RGB images `start` to `stop` (exclusive); DataError names a file that is not what was written."""
        return [read_image(self.data(index)) for index in range(len(self))[start:stop]]

    def data(self, index: int) -> "SealedImage":
        """What `read_image` reads as image `index`."""
        file = self.files[index]
        return SealedImage(self.folder / file, self.pixels.seal(file))

    def check(self) -> None:
        """DataError names a file of the set that is not what was written; all files are read."""
        self.pixels.check()


@dataclass(frozen=True)
class SealedImage:
    """An image file and what its bytes have to be; it travels to the processes that decode it."""

    path: Path
    seal: Seal


def _pixels(artefact: Artefact) -> Artefact:
    """The artefact that holds the files of the set; DataError when other images, or none, lie there now."""
    place = artefact.manifest["notes"].get(PIXELS)
    if place is None:
        return artefact
    stored = Path(os.path.normpath(artefact.folder / place))
    found = Artefact.open(stored, stage=STAGE) if (stored / MANIFEST).exists() else None
    if found is None or found.results != artefact.results:
        raise DataError(f"the images of {artefact.folder} are no longer in {stored}; run `smpo generate` again")
    return found


def read_image(data: SealedImage) -> Image.Image:
    """The RGB image of a file; DataError when the file is not what was written."""
    again = "delete this file and run `smpo generate` again"
    content, wrong = read_sealed(data.path, data.seal)
    if wrong is not None:
        raise DataError(f"{data.path} {wrong}; {again}")
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise DataError(f"{data.path} cannot be read ({error}); {again}") from error
