"""Scenes of the tiny world: one or two coloured pictograms on a plain background, and the renderer that draws them."""

import colorsys
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from smpo.tiny.pictograms import INK, PICTOGRAMS, Colour, Pen, mix

IMAGE_SIZE_PX = 64
SUPERSAMPLING = 4  # drawn at 256 px, then averaged: the anti-aliasing
KINDS = tuple(PICTOGRAMS)
COLOURS: Mapping[str, Colour] = MappingProxyType(
    {
        "red": (222, 52, 48),
        "orange": (246, 136, 30),
        "yellow": (250, 212, 40),
        "green": (52, 164, 80),
        "blue": (46, 104, 216),
        "purple": (146, 70, 182),
    }
)
BACKGROUNDS: Mapping[str, Colour] = MappingProxyType(
    {
        "white": (247, 246, 242),
        "yellow": (252, 232, 158),
        "green": (178, 222, 172),
        "blue": (168, 208, 244),
        "pink": (250, 194, 210),
        "black": (50, 52, 68),
    }
)
SIZES: Mapping[str, float] = MappingProxyType({"small": 10.5, "large": 18.5})  # half side, px
PAIR_HALF_PX = 13.0
POSITIONS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "centre": (0, 0)}
)
PAIR_POSITIONS = (("left", "right"), ("top", "bottom"))


@dataclass(frozen=True)
class SceneObject:
    """One pictogram of a scene: what it is, its colour, where it stands, and its size (None beside a second object)."""

    kind: str
    colour: str
    position: str
    size: str | None = None

    def __post_init__(self) -> None:
        _check_word("kind", self.kind, KINDS)
        _check_word("colour", self.colour, COLOURS)
        _check_word("position", self.position, POSITIONS)
        if self.size is not None:
            _check_word("size", self.size, SIZES)


@dataclass(frozen=True)
class Scene:
    """One object with a size, or two without that stand left/right or top/bottom, on a background of another colour."""

    objects: tuple[SceneObject, ...]
    background: str

    def __post_init__(self) -> None:
        _check_word("background", self.background, BACKGROUNDS)
        if len(self.objects) not in (1, 2):
            raise ValueError(f"a scene has 1 or 2 objects, got {len(self.objects)}; leave some out")
        if any(o.colour == self.background for o in self.objects):
            raise ValueError(f"an object on a {self.background} background got the same colour; choose another")
        if (len(self.objects) == 1) != all(o.size for o in self.objects):
            raise ValueError("one object needs a size and two have none, got the reverse; set or drop `size`")
        if len(self.objects) == 2:
            _check_pair(self.objects)


def _check_word(name: str, word: str, known: Mapping[str, object] | tuple[str, ...]) -> None:
    if word not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {word!r}; choose a known one")


def _check_pair(objects: tuple[SceneObject, ...]) -> None:
    first, second = objects
    if (first.position, second.position) not in PAIR_POSITIONS:
        got = (first.position, second.position)
        raise ValueError(f"two objects stand at left, right or at top, bottom, got {got}; use this order")
    if first.kind == second.kind or first.colour == second.colour:
        raise ValueError(f"two objects differ in kind and in colour, got {first} and {second}; change one")


def attributes(scene: Scene) -> dict[str, str]:
    """Every attribute of a scene by name: object, colour, position, size, background.

    In a scene of two the object's attributes end in " 1" and " 2", and there is no size.
    """
    named: dict[str, str] = {}
    for i, thing in enumerate(scene.objects, start=1):
        suffix = f" {i}" if len(scene.objects) == 2 else ""
        named |= {f"object{suffix}": thing.kind, f"colour{suffix}": thing.colour, f"position{suffix}": thing.position}
        if thing.size is not None:
            named["size"] = thing.size
    return named | {"background": scene.background}


def single_scenes() -> list[Scene]:
    """All scenes of one object, in a fixed order (3,300 of them)."""
    combinations = itertools.product(KINDS, COLOURS, POSITIONS, SIZES, BACKGROUNDS)
    return [
        Scene((SceneObject(kind, colour, position, size),), background)
        for kind, colour, position, size, background in combinations
        if colour != background
    ]


def random_pair(rng: np.random.Generator) -> Scene:
    """A scene of two objects, drawn uniformly."""
    kinds = rng.permutation(KINDS)[:2].tolist()
    colours = rng.permutation(list(COLOURS))[:2].tolist()
    background = rng.choice([b for b in BACKGROUNDS if b not in colours])
    positions = PAIR_POSITIONS[rng.integers(2)]
    things = (SceneObject(*words) for words in zip(kinds, colours, positions, strict=True))
    return Scene(tuple(things), str(background))


def draw(scene: Scene, seed: int | Sequence[int] | np.random.Generator) -> Image.Image:
    """RGB image of a scene, 64 x 64 px; the seed sets the small jitter of place, scale, shade and direction."""
    rng = np.random.default_rng(seed)
    pixels = _backdrop(BACKGROUNDS[scene.background], rng)
    for thing in scene.objects:
        layer = _layer(thing, rng)
        opacity = layer[..., 3:] / 255.0
        pixels = pixels * (1 - opacity) + layer[..., :3] * opacity
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))


def _backdrop(colour: Colour, rng: np.random.Generator) -> np.ndarray:
    """Background that fades from a lighter top to a darker bottom, (64, 64, 3) in 0..255."""
    base = np.array(colour, dtype=np.float64) + rng.uniform(-4, 4, size=3)
    fade = np.linspace(4.0, -6.0, IMAGE_SIZE_PX)[:, None, None]
    return np.broadcast_to(np.clip(base + fade, 0, 255), (IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3))


def _layer(thing: SceneObject, rng: np.random.Generator) -> np.ndarray:
    """One object with its outline and shading on a transparent layer, (64, 64, 4) in 0..255."""
    half = (SIZES[thing.size] if thing.size else PAIR_HALF_PX) * rng.uniform(0.94, 1.06)
    reach = IMAGE_SIZE_PX / 2 - 2.5 - half  # keeps the object and its jitter inside the image
    dx, dy = POSITIONS[thing.position]
    sway = rng.uniform(-1.5, 1.5, size=2)
    centre = (32 + dx * reach + sway[0], 32 + dy * reach + sway[1])
    main = _jittered(COLOURS[thing.colour], rng)
    layer = Image.new("RGBA", (IMAGE_SIZE_PX * SUPERSAMPLING,) * 2)
    place = (centre[0] * SUPERSAMPLING, centre[1] * SUPERSAMPLING)
    pen = Pen(ImageDraw.Draw(layer), place, half * SUPERSAMPLING, main, mirrored=bool(rng.integers(2)))
    PICTOGRAMS[thing.kind](pen)
    outlined = Image.new("RGBA", layer.size, (*mix(main, INK, 0.55), 0))
    outlined.putalpha(layer.getchannel("A").filter(ImageFilter.MaxFilter(5)))
    outlined.alpha_composite(layer)
    small = outlined.resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BOX)
    return _lit(np.asarray(small, dtype=np.float64), centre, half)


def _lit(layer: np.ndarray, centre: tuple[float, float], half: float) -> np.ndarray:
    """The layer lit from its upper left: 10 % brighter there, 14 % darker at the lower right."""
    steps = np.arange(IMAGE_SIZE_PX)
    slope = ((steps[None, :] - centre[0]) + (steps[:, None] - centre[1])) / (2 * half)
    shade = 1.0 - 0.12 * np.clip(slope, -0.85, 1.15)
    lit = layer.copy()
    lit[..., :3] = np.clip(lit[..., :3] * shade[..., None], 0, 255)
    return lit


def _jittered(colour: Colour, rng: np.random.Generator) -> Colour:
    """A near shade of a colour: hue +-3 degrees, saturation and value +-4 %."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    hue = (hue + rng.uniform(-3, 3) / 360) % 1.0
    saturation, value = (min(1.0, v * rng.uniform(0.96, 1.04)) for v in (saturation, value))
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue
