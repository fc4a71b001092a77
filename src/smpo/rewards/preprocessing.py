"""From a PIL image to the pixel values of a model: the two pipelines of the published scorers (docs/scorers.md).

Both use only pillow, torch and numpy, and are bit-equal to the originals, which use torchvision or transformers.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from smpo.core.checks import check_known
from smpo.core.errors import DataError
from smpo.data.images import MAX_PIXELS, ImageError, upright_rgb

SIZE_PX = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of every scorer here, ImageReward included
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
REQUIRED_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
LIBRARIES = ("transformers", "torchvision")


@dataclass(frozen=True, kw_only=True)
class ShortestSide:
    """Resize the shortest side of the 8-bit image, crop the centre, scale to [0, 1], normalise ("P1").

    Attributes:
        shortest_px: length of the shortest side after resizing.
        crop_px: (height, width) of the crop.
        mean: of each channel, in [0, 1].
        std: of each channel.
        resample: pillow's number of the filter; 3 = bicubic.
        scale: factor from uint8 to [0, 1].
        library: whose rounding of the crop's offset and of the last bits: "transformers" (PickScore) rounds the
            offset down, "torchvision" (all others) to the nearest even number.
    """

    shortest_px: int = SIZE_PX
    crop_px: tuple[int, int] = (SIZE_PX, SIZE_PX)
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    resample: int = 3
    scale: float = 1 / 255
    library: str = "transformers"

    version: ClassVar[str] = "shortest-side/2"  # raise it with any change that moves a pixel

    def __post_init__(self) -> None:
        check_known(self.library, LIBRARIES, what="preprocessing library")

    @classmethod
    def load(cls, folder: Path) -> "ShortestSide":
        """The preprocessing of `folder`/preprocessor_config.json.

        Raises:
            DataError: there is no such file, or it asks for another pipeline than this one.
        """
        file = folder / "preprocessor_config.json"
        if not file.is_file():
            raise DataError(f"{folder} has no preprocessor_config.json; set processor to a source with one")
        config = json.loads(file.read_text())
        size, crop = config.get("size", SIZE_PX), config.get("crop_size", SIZE_PX)
        shortest = size.get("shortest_edge") if isinstance(size, dict) else size
        crop = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
        skipped = [step for step in REQUIRED_STEPS if not config.get(step, True)]
        if shortest is None or skipped:
            raise DataError(f"{file} asks for size {size} and skips {', '.join(skipped) or 'nothing'}; CLIP resizes "
                            "the shortest_edge and skips nothing; use the processor of a CLIP model")
        return cls(shortest_px=shortest, crop_px=(crop["height"], crop["width"]), mean=tuple(config["image_mean"]),
                   std=tuple(config["image_std"]), resample=config.get("resample", 3),
                   scale=config.get("rescale_factor", 1 / 255))

    def describe(self) -> dict[str, Any]:
        """The settings and the version, for a scorer's identity."""
        return {"version": self.version, **asdict(self), "crop_px": list(self.crop_px), "mean": list(self.mean),
                "std": list(self.std)}

    def __call__(self, image: Image.Image) -> Tensor:
        """Pixel values, shape (3, height, width), float32.

        Raises:
            ImageError: the image is damaged, too large, or so narrow that its long side would become too large.
        """
        image = self._crop_centre(self._resize(upright_rgb(image)))
        if self.library == "torchvision":
            unit = torch.from_numpy(np.array(image)).float() / 255
        else:  # scales in float64, which moves last bits
            unit = torch.from_numpy((np.asarray(image).astype(np.float64) * self.scale).astype(np.float32))
        return ((unit - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1).contiguous()  # (3, H, W)

    def _resize(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        short, long = min(width, height), max(width, height)
        new_long = int(self.shortest_px * long / short)  # truncated, not rounded
        if self.shortest_px * new_long > MAX_PIXELS:
            raise ImageError("oversized_image", f"image of {width} x {height} px is too narrow: with its short side at "
                             f"{self.shortest_px} px the long one has {new_long} px; crop it")
        size = (self.shortest_px, new_long) if width <= height else (new_long, self.shortest_px)
        return image.resize(size, self.resample)

    def _crop_centre(self, image: Image.Image) -> Image.Image:
        """The central crop; parts outside the image are black."""
        height, width = self.crop_px
        left, top = self._offset(image.width - width), self._offset(image.height - height)
        return image.crop((left, top, left + width, top + height))

    def _offset(self, excess_px: int) -> int:
        return round(excess_px / 2) if self.library == "torchvision" else excess_px // 2


@dataclass(frozen=True, kw_only=True)
class LongestSide:
    """Scale to [0, 1], resize the longest side of that tensor, pad with zeros to a square, normalise ("P2").

    HPSv2 was trained with it, and Diffusion-DPO's CLIP score uses it. Values after resizing may leave [0, 1].

    Attributes:
        size_px: side of the square.
        antialias: what torchvision did by default from version 0.17 on; before, and in the paper's environment, False.
    """

    size_px: int = SIZE_PX
    antialias: bool = False

    version: ClassVar[str] = "longest-side/1"

    def describe(self) -> dict[str, Any]:
        """The settings and the version, for a scorer's identity."""
        return {"version": self.version, **asdict(self), "mean": list(CLIP_MEAN), "std": list(CLIP_STD)}

    def __call__(self, image: Image.Image) -> Tensor:
        """Pixel values, shape (3, size, size), float32.

        Raises:
            ImageError: the image is damaged or too large.
        """
        unit = torch.from_numpy(np.array(upright_rgb(image))).permute(2, 0, 1).contiguous().float() / 255  # (3, H, W)
        unit = self._pad(self._resize(unit))
        return (unit - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]

    def _resize(self, unit: Tensor) -> Tensor:
        height, width = unit.shape[1:]
        scale = self.size_px / max(height, width)
        if scale == 1:
            return unit
        size = (max(round(height * scale), 1), max(round(width * scale), 1))  # the original fails where this gives 0
        return F.interpolate(unit[None], size, mode="bicubic", align_corners=False, antialias=self.antialias)[0]

    def _pad(self, unit: Tensor) -> Tensor:
        """Zeros around it; the original forgets them where the longest side needed no resizing, and then fails."""
        pad_h, pad_w = self.size_px - unit.shape[1], self.size_px - unit.shape[2]
        return F.pad(unit, (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2))
