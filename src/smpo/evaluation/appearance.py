"""How images look, without any model: brightness, contrast, saturation, sharpness, and a small CIELAB thumbnail.

Reward models may miss such changes: an over-optimised model tends to generate images of more saturation and contrast,
and images that are alike.
"""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from smpo.core.artefacts import Artefact, Status, begin, finish, hash_file, write_atomically
from smpo.core.processes import main_first
from smpo.sampling.image_set import ImageSet, read_image

STAGE = "evaluate"  # of the manifest
FILE = "appearance.npz"
VERSION = 1  # raise it whenever a number can change
MEASURES = ("brightness", "contrast", "saturation", "sharpness")
THUMBNAIL_SIDE = 16
AT_ONCE = 32  # images read at a time

# sRGB to CIE XYZ (IEC 61966-2-1), divided by the white point D65, so that white becomes (1, 1, 1)
RGB_TO_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041],
])
RGB_TO_XYZ /= RGB_TO_XYZ.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Appearance:
    """Measures of n images.

    Attributes:
        measures: name -> shape (n,): mean L* (brightness), standard deviation of L* (contrast), mean chroma C*
            (saturation), standard deviation of the Laplacian of L* (sharpness); all in CIELAB units.
        thumbnails: 16 x 16 CIELAB colours, shape (n, 768), float32. The Euclidean distance of two thumbnails, divided
            by 16, is the root mean square CIE76 difference of their cells.
        images_per_prompt: how many consecutive images share a prompt.
        fingerprint: of the image set.
    """

    measures: dict[str, np.ndarray]
    thumbnails: np.ndarray
    images_per_prompt: int
    fingerprint: str

    @classmethod
    def open(cls, folder: Path) -> "Appearance":
        """The measures in `folder`; DataError where they are missing, unfinished or changed."""
        artefact = Artefact.open(folder, stage=STAGE)
        stored = np.load(io.BytesIO(artefact.read(FILE)))
        return cls(
            {name: stored[name] for name in MEASURES}, stored["thumbnails"], artefact.results["images_per_prompt"],
            artefact.manifest["inputs"]["images"],
        )


def measure_images(
    images: ImageSet, out: Path, *, progress: Callable[[int, int], None] | None = None
) -> Appearance:
    """The measures of `images`; read from `out` where they exist, else computed by the main process.

    Raises:
        StaleError: `out` holds the measures of other images.
        DataError: an image cannot be read.
    """

    def measured() -> None:
        if begin(out, stage=STAGE, settings={"version": VERSION}, inputs={"images": images.fingerprint}) is Status.DONE:
            return
        rows = _measured(images, progress)
        buffer = io.BytesIO()
        columns = {name: np.array([row[0][i] for row in rows]) for i, name in enumerate(MEASURES)}
        columns["thumbnails"] = np.stack([row[1] for row in rows])
        np.savez_compressed(buffer, **columns)  # type: ignore[arg-type]  # for mypy a key may be "allow_pickle"
        write_atomically(out / FILE, buffer.getvalue())
        finish(out, {"images_per_prompt": images.images_per_prompt, "sha256": hash_file(out / FILE)}, files=[FILE])

    main_first("measure the images", measured)
    return Appearance.open(out)


def _measured(
    images: ImageSet, progress: Callable[[int, int], None] | None
) -> list[tuple[tuple[float, ...], np.ndarray]]:
    rows: list[tuple[tuple[float, ...], np.ndarray]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(images), AT_ONCE):
            some = range(len(images))[start : start + AT_ONCE]
            rows += pool.map(lambda index: measure(read_image(images.data(index))), some)
            if progress is not None:
                progress(len(rows), len(images))
    return rows


def measure(image: Image.Image) -> tuple[tuple[float, ...], np.ndarray]:
    """(one number per measure, thumbnail of shape (768,)) of an RGB image."""
    lab = to_lab(np.asarray(image))
    lightness, chroma = lab[..., 0], np.hypot(lab[..., 1], lab[..., 2])
    numbers = (lightness.mean(), lightness.std(), chroma.mean(), ndimage.laplace(lightness).std())
    small = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return tuple(float(number) for number in numbers), to_lab(np.asarray(small)).astype(np.float32).ravel()


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB pixels: uint8 of shape (..., 3) to L* in [0, 100], a*, b*, float64."""
    value = pixels / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ RGB_TO_XYZ.T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
