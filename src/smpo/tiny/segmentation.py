"""Finds the objects of a tiny-world image: colour difference to the background, then connected components."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from smpo.tiny.scenes import IMAGE_SIZE_PX

FRAME_PX = 2  # the image's frame shows the background: no object reaches it
EDGE_DELTA, FULL_DELTA = 8.0, 20.0  # CIE76 differences at which a pixel starts to be, and surely is, foreground
MIN_AREA_PX = 24
MIN_AREA_SHARE = 0.3  # of the largest component: smaller ones are debris
MERGED_SPAN_PX = 46  # a large object spans at most 40 px: what is longer is two objects that touch
GAP_PX = 2  # parts of one object (stem and bloom, trunk and crown) lie at most this far apart
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65
WHITE_XYZ = np.array([0.9505, 1.0, 1.089])


@dataclass(frozen=True)
class Segment:
    """One object of an image.

    Args:
        coverage: soft foreground mask of this object in [0, 1], (64, 64).
        box: (left, top, right, bottom) of the object in px, right and bottom exclusive.
    """

    coverage: np.ndarray
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box (x, y), px."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def span(self) -> int:
        """Longer side of the box, px."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


def to_pixels(image: Image.Image) -> np.ndarray:
    """RGB pixels in 0..255 at the world's size, float64 (64, 64, 3)."""
    if image.size != (IMAGE_SIZE_PX, IMAGE_SIZE_PX):
        image = image.resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BICUBIC)
    return np.asarray(image.convert("RGB"), dtype=np.float64)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB colours in 0..255, same shape (..., 3)."""
    scaled = rgb / 255
    linear = np.where(scaled > 0.04045, ((scaled + 0.055) / 1.055) ** 2.4, scaled / 12.92)
    ratio = linear @ RGB_TO_XYZ.T / WHITE_XYZ
    root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def backdrop_colour(pixels: np.ndarray) -> np.ndarray:
    """Median colour of the image's frame, (3,) in 0..255."""
    inner = slice(FRAME_PX, -FRAME_PX)
    is_frame = np.ones(pixels.shape[:2], dtype=bool)
    is_frame[inner, inner] = False
    return np.median(pixels[is_frame], axis=0)


def find_segments(pixels: np.ndarray) -> list[Segment]:
    """The objects of an image (64, 64, 3), largest first; debris is left out."""
    delta = np.linalg.norm(to_lab(pixels) - to_lab(backdrop_colour(pixels)), axis=-1)
    coverage = np.clip((delta - EDGE_DELTA) / (FULL_DELTA - EDGE_DELTA), 0.0, 1.0)
    mask = coverage > 0.5
    parts = [part for component in _components(mask) for part in _separated(component)]
    parts.sort(key=lambda part: -part.sum())
    return [_segment(part, coverage) for part in parts if part.sum() >= MIN_AREA_SHARE * parts[0].sum()]


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """Connected groups of foreground; gaps up to GAP_PX are bridged, unless that makes two objects one."""
    labels, num = ndimage.label(mask, structure=np.ones((3, 3)))
    groups = [labels == i for i in range(1, num + 1)]
    large = [group for group in groups if group.sum() >= MIN_AREA_PX]
    if not large:
        return []
    nearest = np.argmin([ndimage.distance_transform_edt(~group) for group in large], axis=0)
    gaps = np.min([ndimage.distance_transform_edt(~group) for group in large], axis=0)
    joined = [group.copy() for group in large]
    for group in groups:
        if group.sum() >= MIN_AREA_PX or gaps[group].min() > GAP_PX + 1:
            continue
        row, column = np.argwhere(group & (gaps == gaps[group].min()))[0]
        joined[nearest[row, column]] |= group
    return joined


def _separated(component: np.ndarray) -> list[np.ndarray]:
    """The component itself, or its two halves where it is too long to be one object: cut where it is thinnest."""
    for axis in (0, 1):
        profile = component.sum(axis=axis)
        span = np.flatnonzero(profile)
        if span[-1] - span[0] + 1 < MERGED_SPAN_PX:
            continue
        middle = np.arange(26, 38)
        cut = middle[np.argmin(profile[middle])]
        first = np.arange(IMAGE_SIZE_PX) < cut
        side = first[None, :] if axis == 0 else first[:, None]
        return [component & side, component & ~side]
    return [component]


def _segment(part: np.ndarray, coverage: np.ndarray) -> Segment:
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    rim = ndimage.binary_dilation(part)  # keeps the half-covered pixels of the anti-aliased edge
    filled = ndimage.binary_fill_holes(part)  # windows and eyes may have the background's colour
    return Segment(np.maximum(coverage * rim, filled), box)
