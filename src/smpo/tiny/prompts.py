"""The prompt language of the tiny world: scene -> English phrase, phrase -> scene, and the train / heldout split."""

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from smpo.core.errors import DataError
from smpo.tiny.scenes import BACKGROUNDS, COLOURS, KINDS, PAIR_POSITIONS, Scene, SceneObject, random_pair, single_scenes

POSITION_PHRASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "left": ("on the left",),
        "right": ("on the right",),
        "top": ("at the top",),
        "bottom": ("at the bottom",),
        "centre": ("in the centre", "in the middle"),
    }
)
SIZE_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType({"small": ("small", "little"), "large": ("large", "big")})
SINGLE_TEMPLATES = (
    "a {size} {colour} {kind} {position}, on a {background} background",
    "{position}, a {size} {colour} {kind} on a {background} background",
    "a drawing of a {size} {colour} {kind} {position}, {background} background",
    "a {background} background with a {size} {colour} {kind} {position}",
    "a {size} {kind} in {colour} {position}, the background is {background}",
)
PAIR_TEMPLATES = (
    "{first} {position_1} and {second} {position_2}, on a {background} background",
    "on a {background} background, {first} {position_1} and {second} {position_2}",
    "a drawing of {first} {position_1} and {second} {position_2}, {background} background",
)
SPLITS = ("train", "heldout")
PAIR_SHARE = 0.2  # of the sampled prompts, those with two objects
EXAMPLE = "a small red house on the left, on a blue background"


def phrase(scene: Scene, rng: np.random.Generator) -> str:
    """A prompt that names every attribute of a scene, in one of several English phrasings drawn with `rng`."""
    if len(scene.objects) == 1:
        (thing,) = scene.objects
        assert thing.size is not None  # a Scene checks that a single object has one
        return _draw_from(SINGLE_TEMPLATES, rng).format(
            size=_draw_from(SIZE_WORDS[thing.size], rng),
            colour=thing.colour,
            kind=thing.kind,
            position=_draw_from(POSITION_PHRASES[thing.position], rng),
            background=scene.background,
        )
    first, second = (scene.objects[i] for i in rng.permutation(2))
    return _draw_from(PAIR_TEMPLATES, rng).format(
        first=_with_article(first),
        position_1=_draw_from(POSITION_PHRASES[first.position], rng),
        second=_with_article(second),
        position_2=_draw_from(POSITION_PHRASES[second.position], rng),
        background=scene.background,
    )


def parse(prompt: str) -> Scene:
    """The scene that a prompt of the grammar names: the inverse of `phrase`.

    Raises:
        DataError: the prompt is outside the grammar, or names a scene that does not exist.
    """
    for pattern in SINGLE_PATTERNS:
        if match := pattern.fullmatch(prompt):
            words = match.groupdict()
            thing = SceneObject(
                words["kind"], words["colour"], POSITION_OF[words["position"]], SIZE_OF[words["size"]]
            )
            return Scene((thing,), words["background"])
    for pattern in PAIR_PATTERNS:
        if match := pattern.fullmatch(prompt):
            return _parsed_pair(match.groupdict())
    raise DataError(f"prompt must follow the tiny world's grammar, got {prompt!r}; write it like {EXAMPLE!r}")


def split_of(scene: Scene) -> str:
    """"heldout" for about a tenth of the scenes and "train" for the rest, by a hash that never changes."""
    words = [word for thing in scene.objects for word in (thing.kind, thing.colour, thing.position, thing.size or "")]
    digest = hashlib.sha256(" ".join([*words, scene.background]).encode()).digest()
    return "heldout" if int.from_bytes(digest[:4], "big") % 10 == 0 else "train"


def sample_scenes(num: int, *, seed: int, split: str) -> list[Scene]:
    """`num` scenes of a split, a fifth of them with two objects; the same seed gives the same list."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}; choose a known one")
    rng = np.random.default_rng(seed)
    singles = [scene for scene in single_scenes() if split_of(scene) == split]
    scenes: list[Scene] = []
    while len(scenes) < num:
        scenes.append(_random_pair_of(split, rng) if rng.random() < PAIR_SHARE else singles[rng.integers(len(singles))])
    return scenes


def sample_prompts(num: int, *, seed: int, split: str) -> list[str]:
    """`num` prompts of a split ("train" or "heldout"), a fifth with two objects; the same seed gives the same list.

    The two splits share no combination of attributes; the base and the reward have seen only "train".
    """
    rng = np.random.default_rng([seed, 1])
    return [phrase(scene, rng) for scene in sample_scenes(num, seed=seed, split=split)]


def _random_pair_of(split: str, rng: np.random.Generator) -> Scene:
    while split_of(scene := random_pair(rng)) != split:
        pass
    return scene


def _draw_from(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]


def _with_article(thing: SceneObject) -> str:
    return f"{'an' if thing.colour[0] in 'aeiou' else 'a'} {thing.colour} {thing.kind}"


def _parsed_pair(words: dict[str, str]) -> Scene:
    fields = [(words[f"kind_{i}"], words[f"colour_{i}"], POSITION_OF[words[f"position_{i}"]]) for i in (1, 2)]
    things = [SceneObject(*field) for field in fields]
    order = [position for positions in PAIR_POSITIONS for position in positions]
    things.sort(key=lambda thing: order.index(thing.position) if thing.position in order else len(order))
    return Scene(tuple(things), words["background"])


def _pattern(template: str) -> re.Pattern[str]:
    """A template as a regular expression with one named group per attribute."""
    groups = {"size": SIZE_OF, "colour": COLOURS, "kind": KINDS, "position": POSITION_OF, "background": BACKGROUNDS}
    fields = {name: f"(?P<{name}>{'|'.join(words)})" for name, words in groups.items()}
    for i, place in ((1, "first"), (2, "second")):
        fields[f"position_{i}"] = f"(?P<position_{i}>{'|'.join(POSITION_OF)})"
        named = f"(?P<colour_{i}>{'|'.join(COLOURS)}) (?P<kind_{i}>{'|'.join(KINDS)})"
        fields[place] = f"an? {named}"
    return re.compile(template.format(**fields))


POSITION_OF = {words: position for position, phrases in POSITION_PHRASES.items() for words in phrases}
SIZE_OF = {word: size for size, words in SIZE_WORDS.items() for word in words}
SINGLE_PATTERNS = tuple(_pattern(template) for template in SINGLE_TEMPLATES)
PAIR_PATTERNS = tuple(_pattern(template) for template in PAIR_TEMPLATES)
