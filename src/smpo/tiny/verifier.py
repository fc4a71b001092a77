"""Reads from the pixels which attributes of a prompt an image has: the tiny world's ground truth, no learnt model."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smpo.tiny.prompts import parse
from smpo.tiny.scenes import BACKGROUNDS, COLOURS, IMAGE_SIZE_PX, Scene, SceneObject, attributes
from smpo.tiny.segmentation import Segment, backdrop_colour, find_segments, to_lab, to_pixels
from smpo.tiny.shapes import recognise

VERSION = 1  # raise it whenever a verdict can change: score tables record it
MAX_BACKDROP_DELTA = 14.0  # CIE76 distance to the nearest named background; farther is no named one
CENTRE_REACH_PX = 5.5  # an object whose box is centred this near the middle stands in the centre
DIAGONAL_SHARE = 0.62  # an object this far off along both axes stands in no named place
LARGE_SPAN_PX = 29
HUES = {"red": 1.0, "orange": 29.5, "yellow": 49.0, "green": 135.0, "blue": 220.0, "purple": 281.0}  # degrees
MAX_HUE_ERROR = 38.0
COLOURED_SATURATION, COLOURED_VALUE = 0.3, 0.25  # below these a pixel is paper, ink or outline
MIN_COLOUR_SHARE = 0.55  # of the coloured pixels must agree on the object's colour


@dataclass(frozen=True)
class FoundObject:
    """What the pixels show of one object; None where nothing known is recognised."""

    kind: str | None
    colour: str | None
    position: str | None
    size: str


@dataclass(frozen=True)
class Reading:
    """What the pixels of one image show: the background (None where no named one) and the objects, largest first."""

    background: str | None
    objects: tuple[FoundObject, ...]


def read(image: Image.Image) -> Reading:
    """The background and the objects that an image shows, without knowing its prompt."""
    pixels = to_pixels(image)
    segments = find_segments(pixels)
    places = _places(segments)
    found = tuple(
        FoundObject(
            recognise(pixels, segment),
            read_colour(pixels, segment),
            place,
            "large" if segment.span >= LARGE_SPAN_PX else "small",
        )
        for segment, place in zip(segments, places, strict=True)
    )
    return Reading(read_background(pixels), found)


def verify(image: Image.Image, scene: Scene) -> dict[str, bool]:
    """For every attribute of a scene (see `scenes.attributes`) whether the image has it.

    The objects found are assigned to those of the scene in the order that fulfils most. With another number of
    objects than the scene's, no object counts as right: its colour, position and size still may.
    """
    reading = read(image)
    is_count_right = len(reading.objects) == len(scene.objects)
    candidates: list[FoundObject | None] = list(reading.objects[: len(scene.objects)])
    candidates += [None] * (len(scene.objects) - len(candidates))
    assignments = [
        [_fulfilled(thing, found, is_count_right) for thing, found in zip(scene.objects, order, strict=True)]
        for order in itertools.permutations(candidates)
    ]
    best = max(assignments, key=lambda verdicts: sum(sum(verdict.values()) for verdict in verdicts))
    named: dict[str, bool] = {}
    for i, verdict in enumerate(best, start=1):
        suffix = f" {i}" if len(best) == 2 else ""
        named |= {name if name == "size" else name + suffix: is_right for name, is_right in verdict.items()}
    return {name: named.get(name, reading.background == scene.background) for name in attributes(scene)}


@dataclass(frozen=True)
class WorldPixels:
    """Preprocessing: the RGB pixels at the world's size, uint8."""

    def __call__(self, image: Image.Image) -> Tensor:
        """Pixels in 0..255, shape (64, 64, 3), uint8."""
        return torch.from_numpy(to_pixels(image).astype(np.uint8))

    def describe(self) -> dict[str, Any]:
        """The size and the version."""
        return {"version": f"world-pixels/{VERSION}", "size_px": IMAGE_SIZE_PX}


@dataclass(frozen=True)
class Verifier:
    """Scorer: the fraction of the attributes named in each prompt that its image has."""

    name: ClassVar[str] = "verifier"
    units: ClassVar[str] = "fraction of the prompt's attributes"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    higher_is_better: ClassVar[bool] = True

    @property
    def preprocessing(self) -> WorldPixels:
        """The image part."""
        return WorldPixels()

    def identity(self) -> dict[str, Any]:
        """What decides a score: the rules of this version."""
        return {"name": self.name, "units": self.units, "version": VERSION}

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Scores in [0, 1], float32 (B,).

        Raises:
            ValueError: a prompt is outside the world's grammar, or the counts differ.
        """
        fractions = [sum(verdict.values()) / len(verdict) for verdict in self.details(images, prompts)]
        return torch.tensor(fractions, dtype=torch.float32)

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """`__call__` for preprocessed images, stacked to (B, 64, 64, 3), uint8."""
        return self(_to_images(inputs), prompts)

    def verdicts(self, inputs: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        """`details` for preprocessed images, stacked to (B, 64, 64, 3), uint8."""
        return self.details(_to_images(inputs), prompts)

    def details(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[dict[str, bool]]:
        """For each image whether it has each attribute that its prompt names."""
        if len(images) != len(prompts):
            got = f"{len(images)} images and {len(prompts)} prompts"
            raise ValueError(f"need one prompt per image, got {got}; match them")
        return [verify(image, parse(prompt)) for image, prompt in zip(images, prompts, strict=True)]


def _to_images(inputs: Tensor) -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in inputs.cpu().numpy()]


def attribute_accuracy(verdicts: Sequence[dict[str, bool]]) -> dict[str, float]:
    """Share of images that fulfil each attribute, in [0, 1]; "colour 1" and "colour 2" count as "colour"."""
    answers: dict[str, list[bool]] = {}
    for verdict in verdicts:
        for name, is_right in verdict.items():
            answers.setdefault(name.rstrip(" 12"), []).append(is_right)
    return {name: sum(values) / len(values) for name, values in answers.items()}


def read_background(pixels: np.ndarray) -> str | None:
    """Name of the background nearest to the frame's colour, or None where none is near; pixels (64, 64, 3)."""
    backdrop = to_lab(backdrop_colour(pixels))
    deltas = {name: float(np.linalg.norm(backdrop - to_lab(np.array(colour)))) for name, colour in BACKGROUNDS.items()}
    nearest = min(deltas, key=deltas.__getitem__)
    return nearest if deltas[nearest] <= MAX_BACKDROP_DELTA else None


def read_colour(pixels: np.ndarray, segment: Segment) -> str | None:
    """Colour that most coloured pixels of a segment vote for, weighted by saturation; None without a majority."""
    inside = pixels[segment.coverage >= 1.0] / 255
    value, chroma = inside.max(axis=-1), np.ptp(inside, axis=-1)
    saturation = chroma / np.maximum(value, 1e-6)
    is_coloured = (saturation > COLOURED_SATURATION) & (value > COLOURED_VALUE)
    if is_coloured.sum() < 0.2 * len(inside):
        return None
    inside, weight = inside[is_coloured], saturation[is_coloured]
    red, green, blue = inside.T
    hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))  # 0 red, 120 green, 240 blue
    errors = np.abs((hue[:, None] - np.array(list(HUES.values())) + 180) % 360 - 180)
    votes = np.where(errors.min(axis=1) <= MAX_HUE_ERROR, errors.argmin(axis=1), len(HUES))
    shares = np.bincount(votes, weights=weight, minlength=len(HUES) + 1)[:-1] / weight.sum()
    return list(COLOURS)[shares.argmax()] if shares.max() >= MIN_COLOUR_SHARE else None


def _fulfilled(thing: SceneObject, found: FoundObject | None, is_count_right: bool) -> dict[str, bool]:
    verdict = {
        "object": found is not None and is_count_right and found.kind == thing.kind,
        "colour": found is not None and found.colour == thing.colour,
        "position": found is not None and found.position == thing.position,
    }
    if thing.size is not None:
        verdict["size"] = found is not None and found.size == thing.size
    return verdict


def _places(segments: Sequence[Segment]) -> list[str | None]:
    """Position word of each segment: of two by how they lie to each other, of one by its place in the image."""
    if len(segments) != 2:
        middle = IMAGE_SIZE_PX / 2
        return [_place(x - middle, y - middle) for x, y in (segment.centre for segment in segments)]
    (x_1, y_1), (x_2, y_2) = (segment.centre for segment in segments)
    return [_place(x_1 - x_2, y_1 - y_2), _place(x_2 - x_1, y_2 - y_1)]


def _place(dx: float, dy: float) -> str | None:
    """Position word of an offset in px (x right, y down), or None on a diagonal."""
    near, far = sorted((abs(dx), abs(dy)))
    if far < CENTRE_REACH_PX:
        return "centre"
    if near > DIAGONAL_SHARE * far:
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "top" if dy < 0 else "bottom"
