"""Sets of generated images as they lie on disk: PNG files and a table of their prompts and seeds."""

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from smpo.artefacts import fingerprint_of, read_manifest
from smpo.errors import DataError

STAGE = "generate"
TABLE = "images.jsonl"


@dataclass(frozen=True)
class ImageSet:
    """A complete folder of generated images, one entry of each tuple per image, in order.

    Attributes:
        folder: the artefact.
        prompts: what each image was asked to show.
        files: paths relative to `folder`.
        seeds: seed of each image's noise.
        images_per_prompt: consecutive images that share a prompt.
        fingerprint: of the settings, the weights and the pixels.
    """

    folder: Path
    prompts: tuple[str, ...]
    files: tuple[str, ...]
    seeds: tuple[int, ...]
    images_per_prompt: int
    fingerprint: str

    @classmethod
    def open(cls, folder: Path) -> "ImageSet":
        """The image set in `folder`; DataError when it is missing, unfinished or something else."""
        manifest = read_manifest(folder, stage=STAGE)
        rows = [json.loads(line) for line in (folder / TABLE).read_text().splitlines()]
        columns = (tuple(row[key] for row in rows) for key in ("prompt", "file", "seed"))
        per_prompt = manifest["settings"]["options"]["images_per_prompt"]
        return cls(folder, *columns, per_prompt, fingerprint_of(folder, stage=STAGE))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def images(self, start: int = 0, stop: int | None = None) -> list[Image.Image]:
        """The RGB images `start` to `stop` (exclusive); DataError names a file that cannot be read."""
        return [read_image(self.folder / file) for file in self.files[start:stop]]


def read_image(path: Path) -> Image.Image:
    """The RGB image in `path`; DataError when it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete the folder and run `smpo generate` again") from error
