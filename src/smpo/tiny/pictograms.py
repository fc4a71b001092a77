"""The ten pictograms of the tiny world: each a function that paints with a `Pen` in the square [-1, 1] x [-1, 1]."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
PAPER: Colour = (252, 246, 232)
INK: Colour = (38, 34, 48)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Colour between `a` (share 0) and `b` (share 1), linear in RGB, each channel in 0..255."""
    red, green, blue = (round((1 - share) * x + share * y) for x, y in zip(a, b, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Pen:
    """Paints in unit coordinates (x right, y down, both in [-1, 1]) on a Pillow canvas.

    Args:
        canvas: the drawing surface, RGBA.
        centre: centre of the unit square on the canvas, px.
        half: half side of the unit square, px.
        main: colour of the object; the lighter and darker shades are derived from it.
        mirrored: True paints the mirror image (left and right swapped).
    """

    canvas: ImageDraw.ImageDraw
    centre: Point
    half: float
    main: Colour
    mirrored: bool = False

    @property
    def light(self) -> Colour:
        """Tint of the object's colour, for lit parts."""
        return mix(self.main, (255, 255, 255), 0.36)

    @property
    def dark(self) -> Colour:
        """Shade of the object's colour, for parts turned from the light."""
        return mix(self.main, (0, 0, 0), 0.24)

    def at(self, point: Point) -> Point:
        """Canvas position of a unit point, px."""
        x = -point[0] if self.mirrored else point[0]
        return self.centre[0] + self.half * x, self.centre[1] + self.half * point[1]

    def box(self, x0: float, y0: float, x1: float, y1: float) -> list[Point]:
        """Canvas corners (upper left, lower right) of a unit rectangle, px."""
        (ax, ay), (bx, by) = self.at((x0, y0)), self.at((x1, y1))
        return [(min(ax, bx), ay), (max(ax, bx), by)]

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill a polygon."""
        self.canvas.polygon([self.at(p) for p in points], fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Fill an ellipse of centre (x, y) and radii (rx, ry)."""
        self.canvas.ellipse(self.box(x - rx, y - ry, x + rx, y + ry), fill=fill)

    def bar(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0.0) -> None:
        """Fill a rectangle whose corners are rounded by `radius`."""
        self.canvas.rounded_rectangle(self.box(x0, y0, x1, y1), radius=radius * self.half, fill=fill)

    def stroke(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """Draw an open line of the given width."""
        self.canvas.line([self.at(p) for p in points], fill=fill, width=max(1, round(width * self.half)), joint="curve")


def _house(pen: Pen) -> None:
    pen.bar(0.42, -0.86, 0.68, -0.2, pen.dark)
    pen.bar(-0.74, -0.1, 0.74, 0.96, pen.light)
    pen.polygon([(-1.0, 0.02), (0.0, -0.96), (1.0, 0.02)], pen.main)
    pen.stroke([(-0.94, 0.02), (0.94, 0.02)], 0.09, pen.dark)
    pen.bar(-0.2, 0.36, 0.2, 0.96, pen.dark, 0.06)
    for x in (-0.5, 0.5):
        pen.bar(x - 0.16, 0.24, x + 0.16, 0.56, PAPER)


def _tree(pen: Pen) -> None:
    pen.bar(-0.13, 0.6, 0.13, 0.98, mix(pen.dark, INK, 0.35))
    tiers = ((0.02, 0.74, 0.74, pen.dark), (-0.48, 0.3, 0.6, pen.main), (-0.98, -0.2, 0.45, pen.main))
    for top, bottom, half, fill in tiers:
        pen.polygon([(0.0, top), (-half, bottom), (half, bottom)], fill)
        pen.polygon([(0.0, top), (-half, bottom), (-half * 0.35, bottom)], pen.light if fill == pen.main else pen.main)


def _boat(pen: Pen) -> None:
    pen.stroke([(0.0, -0.96), (0.0, 0.5)], 0.1, INK)
    pen.polygon([(0.1, -0.94), (0.1, 0.36), (0.86, 0.36)], pen.main)
    pen.polygon([(-0.1, -0.66), (-0.1, 0.36), (-0.72, 0.36)], pen.light)
    pen.polygon([(-1.0, 0.46), (1.0, 0.46), (0.66, 0.94), (-0.66, 0.94)], pen.dark)
    pen.stroke([(-0.88, 0.58), (0.88, 0.58)], 0.09, PAPER)


def _fish(pen: Pen) -> None:
    pen.polygon([(0.36, 0.0), (1.0, -0.56), (0.84, 0.0), (1.0, 0.56)], pen.dark)
    pen.polygon([(-0.4, -0.36), (0.1, -0.76), (0.34, -0.3)], pen.dark)
    pen.ellipse(-0.26, 0.0, 0.74, 0.5, pen.main)
    pen.ellipse(-0.3, 0.2, 0.54, 0.24, pen.light)
    pen.polygon([(-0.1, -0.04), (0.3, -0.22), (0.3, 0.2)], pen.dark)
    pen.ellipse(-0.62, -0.12, 0.16, 0.16, PAPER)
    pen.ellipse(-0.64, -0.12, 0.08, 0.08, INK)


def _mushroom(pen: Pen) -> None:
    pen.bar(-0.3, 0.0, 0.3, 0.96, pen.light, 0.2)
    pen.bar(0.08, 0.1, 0.3, 0.94, mix(pen.main, pen.light, 0.5), 0.12)
    pen.canvas.pieslice(pen.box(-0.98, -0.92, 0.98, 1.16), 180, 360, fill=pen.main)
    pen.ellipse(0.0, 0.14, 0.96, 0.14, pen.dark)
    for x, y, r in ((-0.5, -0.22, 0.17), (0.08, -0.52, 0.2), (0.56, -0.16, 0.15)):
        pen.ellipse(x, y, r, r * 0.92, PAPER)


def _cactus(pen: Pen) -> None:
    for x, top, low in ((-0.68, -0.3, 0.24), (0.68, -0.56, 0.0)):
        pen.bar(x - 0.18, top, x + 0.18, low + 0.18, pen.main, 0.18)
        pen.bar(min(x, 0.0) - 0.18, low - 0.16, max(x, 0.0) + 0.18, low + 0.18, pen.main, 0.17)
    pen.bar(-0.3, -0.96, 0.3, 0.96, pen.main, 0.29)
    pen.bar(-0.2, -0.82, -0.06, 0.9, pen.light, 0.07)
    pen.bar(0.1, -0.82, 0.2, 0.9, pen.dark, 0.05)
    for x, y in ((-0.68, -0.12), (0.68, -0.38)):
        pen.bar(x - 0.05, y, x + 0.05, y + 0.3, pen.light, 0.05)


def _cat(pen: Pen) -> None:
    for side in (-1, 1):
        pen.polygon([(side * 0.86, -0.94), (side * 0.88, 0.1), (side * 0.12, -0.46)], pen.main)
        pen.polygon([(side * 0.74, -0.66), (side * 0.74, -0.2), (side * 0.4, -0.42)], pen.light)
    pen.ellipse(0.0, 0.16, 0.94, 0.74, pen.main)
    pen.ellipse(0.0, 0.5, 0.4, 0.28, pen.light)
    for side in (-1, 1):
        pen.ellipse(side * 0.4, 0.0, 0.2, 0.23, PAPER)
        pen.ellipse(side * 0.36, 0.02, 0.1, 0.17, INK)
    pen.polygon([(-0.14, 0.32), (0.14, 0.32), (0.0, 0.48)], INK)


def _star(pen: Pen) -> None:
    points = []
    for i in range(10):
        radius = 1.04 if i % 2 == 0 else 0.46
        angle = math.pi * i / 5
        points.append((radius * math.sin(angle), 0.07 - radius * math.cos(angle)))
    pen.polygon(points, pen.main)
    for i in range(0, 10, 2):
        pen.polygon([(0.0, 0.07), points[i], points[i - 1]], pen.light)
    pen.ellipse(0.0, 0.07, 0.16, 0.16, pen.light)


def _balloon(pen: Pen) -> None:
    for x in (-0.2, 0.2):
        pen.stroke([(x * 1.9, 0.24), (x, 0.72)], 0.07, INK)
    pen.ellipse(0.0, -0.3, 0.7, 0.68, pen.main)
    pen.polygon([(-0.6, 0.05), (0.6, 0.05), (0.24, 0.5), (-0.24, 0.5)], pen.main)
    pen.ellipse(0.0, -0.3, 0.46, 0.68, pen.light)
    pen.polygon([(-0.4, 0.03), (0.4, 0.03), (0.15, 0.5), (-0.15, 0.5)], pen.light)
    pen.ellipse(0.0, -0.3, 0.2, 0.68, pen.main)
    pen.polygon([(-0.18, 0.03), (0.18, 0.03), (0.06, 0.5), (-0.06, 0.5)], pen.main)
    pen.bar(-0.25, 0.68, 0.25, 1.0, pen.dark, 0.06)


def _flower(pen: Pen) -> None:
    pen.stroke([(0.0, -0.2), (0.0, 0.98)], 0.16, pen.dark)
    for side in (-1, 1):
        pen.polygon([(0.0, 0.86), (side * 0.34, 0.42), (side * 0.72, 0.36), (side * 0.5, 0.7)], pen.dark)
    for i in range(6):
        angle = math.pi * i / 3
        pen.ellipse(0.4 * math.sin(angle), -0.36 - 0.4 * math.cos(angle), 0.27, 0.27, pen.main if i % 2 else pen.light)
    pen.ellipse(0.0, -0.36, 0.27, 0.27, PAPER)
    pen.ellipse(0.0, -0.36, 0.14, 0.14, INK)


PICTOGRAMS: Mapping[str, Callable[[Pen], None]] = MappingProxyType(
    {
        "house": _house,
        "tree": _tree,
        "boat": _boat,
        "fish": _fish,
        "mushroom": _mushroom,
        "cactus": _cactus,
        "cat": _cat,
        "star": _star,
        "balloon": _balloon,
        "flower": _flower,
    }
)
