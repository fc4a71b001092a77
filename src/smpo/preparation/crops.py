"""Makes the views of an image that are cached: resized, cropped and mirrored."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from smpo.core.randomness import generator
from smpo.preparation.options import Crops


@dataclass(frozen=True)
class View:
    """One view of an image.

    Attributes:
        pixels: in [-1, 1], shape (3, R, R), float32.
        size: original height, width, crop top, left, target height, width, in px: SDXL's micro-conditioning. Top and
            left count in the resized image; of a mirrored view, in the mirrored one, as in diffusers' training
            scripts, which mirror before they crop.
    """

    pixels: Tensor
    size: tuple[int, int, int, int, int, int]



def views_of(image: Image.Image, crops: Crops, *, key: str) -> list[View]:
    """All views of an RGB image; random positions depend on `key` alone, which identifies the image."""
    side = crops.resolution
    width, height = resized_size(image.size, side)
    resized = image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BILINEAR)
    views = []
    for number in range(crops.crops):
        top, left = _corner(height - side, width - side, crop=crops.crop, key=f"{key}/{number}")
        square = resized.crop((left, top, left + side, top + side))
        size = (image.height, image.width, top, left, side, side)
        views.append(View(_to_tensor(square), size))
        if crops.flips:
            mirrored = (*size[:3], width - side - left, side, side)
            views.append(View(_to_tensor(ImageOps.mirror(square)), mirrored))
    return views


def resized_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) in px of an image whose shorter side is resized to `side`, as by torchvision's `Resize(side)`.

    The longer side is side * longer / shorter, rounded down.
    """
    shorter = min(size)
    width, height = (int(side * length / shorter) for length in size)
    return width, height


def _corner(spare_height: int, spare_width: int, *, crop: str, key: str) -> tuple[int, int]:
    if crop == "center":
        return round(spare_height / 2), round(spare_width / 2)  # halves to even, as torchvision's CenterCrop
    draws = torch.rand(2, generator=generator("crop", key)).tolist()
    return int(draws[0] * (spare_height + 1)), int(draws[1] * (spare_width + 1))


def _to_tensor(square: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(square, dtype=np.float32))  # (R, R, 3)
    return pixels.permute(2, 0, 1) / 127.5 - 1
