"""From a PIL image to the pixel values of a CLIP model, as transformers does it (REWARDS, pipeline P1)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smpo.errors import DataError

VERSION = "p1-transformers/1"  # raise it with any change that moves a pixel
REQUIRED_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


@dataclass(frozen=True)
class ClipPreprocessing:
    """Resize the shortest side, crop the centre, scale to [0, 1], normalise.

    Attributes:
        shortest_px: length of the shortest side after resizing.
        crop_px: (height, width) of the crop.
        mean: of each channel, in [0, 1].
        std: of each channel.
        resample: pillow's number of the filter; 3 = bicubic.
        scale: factor from uint8 to [0, 1].
    """

    shortest_px: int
    crop_px: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = 3
    scale: float = 1 / 255

    @classmethod
    def load(cls, folder: Path) -> "ClipPreprocessing":
        """The preprocessing of `folder`/preprocessor_config.json.

        Raises:
            DataError: there is no such file, or it asks for another pipeline than this one.
        """
        file = folder / "preprocessor_config.json"
        if not file.is_file():
            raise DataError(f"{folder} has no preprocessor_config.json; set processor to a source with one")
        config = json.loads(file.read_text())
        size, crop = config.get("size", 224), config.get("crop_size", 224)
        shortest = size.get("shortest_edge") if isinstance(size, dict) else size
        crop = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
        skipped = [step for step in REQUIRED_STEPS if not config.get(step, True)]
        if shortest is None or skipped:
            raise DataError(f"{file} asks for size {size} and skips {', '.join(skipped) or 'nothing'}; CLIP resizes "
                            "the shortest_edge and skips nothing; use the processor of a CLIP model")
        return cls(shortest, (crop["height"], crop["width"]), tuple(config["image_mean"]), tuple(config["image_std"]),
                   config.get("resample", 3), config.get("rescale_factor", 1 / 255))

    def describe(self) -> dict[str, Any]:
        """The settings and the version, for a scorer's identity."""
        return {"version": VERSION, "shortest_px": self.shortest_px, "crop_px": list(self.crop_px),
                "mean": list(self.mean), "std": list(self.std), "resample": self.resample}

    def __call__(self, image: Image.Image) -> Tensor:
        """Pixel values, shape (3, height, width), float32; bit-equal to transformers' CLIPImageProcessor (PIL)."""
        image = _crop_centre(self._resize(image.convert("RGB")), self.crop_px)
        # Scaling happens in float64 and normalising in float32, as in transformers; otherwise last bits differ.
        unit = torch.from_numpy((np.asarray(image).astype(np.float64) * self.scale).astype(np.float32))
        return ((unit - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1).contiguous()  # (3, H, W)

    def _resize(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        short, long = min(width, height), max(width, height)
        new_long = int(self.shortest_px * long / short)  # truncated, not rounded
        size = (self.shortest_px, new_long) if width <= height else (new_long, self.shortest_px)
        return image.resize(size, self.resample)


def _crop_centre(image: Image.Image, crop_px: tuple[int, int]) -> Image.Image:
    """The central crop; the offset is rounded down, and what lies outside the image is black."""
    height, width = crop_px
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
