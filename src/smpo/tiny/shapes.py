"""Recognises a pictogram by template matching: silhouette and inner pattern against renders of every kind."""

from functools import cache

import numpy as np
from scipy import ndimage

from smpo.tiny.scenes import KINDS, Scene, SceneObject, draw
from smpo.tiny.segmentation import Segment, find_segments, to_lab, to_pixels

PATCH_PX = 20
PATTERN_WEIGHT = 0.5  # of the inner pattern against the silhouette
MAX_DISTANCE = 0.40  # farther from every template than this is no known object
TEMPLATES_PER_LOOK = 2


def describe(pixels: np.ndarray, segment: Segment) -> np.ndarray:
    """Feature of one segment: its silhouette and its lightness pattern on a 20 x 20 grid, each of length <= 1."""
    lightness = to_lab(pixels)[..., 0]
    weight = segment.coverage / segment.coverage.sum()
    mean = (lightness * weight).sum()
    deviation = np.sqrt(((lightness - mean) ** 2 * weight).sum())
    pattern = np.clip((lightness - mean) / (deviation + 4.0), -2, 2) * segment.coverage
    silhouette = _square_patch(segment.coverage, segment)
    inner = _square_patch(pattern, segment)
    inner /= np.linalg.norm(inner) + 1e-6
    return np.concatenate([(silhouette / np.linalg.norm(silhouette)).ravel(), PATTERN_WEIGHT * inner.ravel()])


def recognise(pixels: np.ndarray, segment: Segment) -> str | None:
    """The kind whose template is nearest to a segment, or None where none is near."""
    features, kinds = _templates()
    distances = ((features - describe(pixels, segment)) ** 2).sum(axis=1)
    nearest = int(np.argmin(distances))
    return kinds[nearest] if distances[nearest] <= MAX_DISTANCE else None


def _square_patch(values: np.ndarray, segment: Segment) -> np.ndarray:
    """The square around a segment, resampled to PATCH_PX a side."""
    step = (segment.span + 2) / PATCH_PX
    x, y = segment.centre
    offsets = (np.arange(PATCH_PX) - (PATCH_PX - 1) / 2) * step - 0.5
    smooth = ndimage.gaussian_filter(values, max(0.35, 0.4 * step))
    rows, columns = np.meshgrid(y + offsets, x + offsets, indexing="ij")
    return ndimage.map_coordinates(smooth, [rows, columns], order=1)


@cache
def _templates() -> tuple[np.ndarray, list[str]]:
    """Features of renders of every kind in several sizes and colours, (N, 800), and their kinds."""
    features, kinds = [], []
    looks = [("small", "red", "white"), ("small", "yellow", "black"), ("large", "blue", "yellow")]
    looks += [("large", "orange", "black"), ("small", "purple", "green"), ("small", "green", "pink")]
    looks += [("large", "yellow", "white"), ("large", "purple", "blue"), ("small", "blue", "black")]
    for kind in KINDS:
        for i, (size, colour, background) in enumerate(looks * TEMPLATES_PER_LOOK):
            scene = Scene((SceneObject(kind, colour, "centre", size),), background)
            pixels = to_pixels(draw(scene, [7, i]))
            features.append(describe(pixels, find_segments(pixels)[0]))
            kinds.append(kind)
    return np.stack(features), kinds
