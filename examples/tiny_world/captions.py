"""Captions of scenes: right ones, and noisy ones as the web's are, which leave a base good but imperfect."""

import numpy as np

from smpo.tiny.prompts import POSITION_OF, SIZE_OF, phrase
from smpo.tiny.scenes import BACKGROUNDS, COLOURS, KINDS, POSITIONS, SIZES, Scene, SceneObject

WRONG_SHARE = 0.25  # of the attribute words, those replaced by a neighbour in their list
MISSING_SHARE = 0.08  # of the remaining attribute words, those left out
EMPTY_SHARE = 0.12  # of the captions, those dropped whole for classifier-free guidance
NAMING_WORDS = frozenset([*KINDS, *COLOURS, *BACKGROUNDS, *SIZE_OF])


def right_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption of a scene that names every attribute; sometimes empty."""
    return "" if rng.random() < EMPTY_SHARE else phrase(scene, rng)


def noisy_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption of a scene whose attribute words are each wrong or missing with some probability; sometimes empty."""
    if rng.random() < EMPTY_SHARE:
        return ""
    caption = phrase(_mistaken(scene, rng), rng)
    for position in POSITION_OF:
        if position in caption and rng.random() < MISSING_SHARE:
            caption = caption.replace(position, "")
    words = (word for word in caption.split() if word not in NAMING_WORDS or rng.random() >= MISSING_SHARE)
    return " ".join(words)


def _mistaken(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with some attributes swapped for wrong ones; drawn again until such a scene exists."""
    for _ in range(20):
        try:
            things = tuple(_mistaken_object(thing, len(scene.objects) == 1, rng) for thing in scene.objects)
            return Scene(things, _confused(scene.background, BACKGROUNDS, rng))
        except ValueError:
            continue
    return scene


def _mistaken_object(thing: SceneObject, is_single: bool, rng: np.random.Generator) -> SceneObject:
    return SceneObject(
        _confused(thing.kind, KINDS, rng),
        _confused(thing.colour, COLOURS, rng),
        _confused(thing.position, POSITIONS, rng) if is_single else thing.position,
        _confused(thing.size, SIZES, rng) if thing.size else None,
    )


def _confused(word: str, known: object, rng: np.random.Generator) -> str:
    """The word, or with the wrong share one of its two neighbours in the (cyclic) list of known words."""
    if rng.random() >= WRONG_SHARE:
        return word
    words = list(known)
    return words[(words.index(word) + (1 if rng.random() < 0.5 else -1)) % len(words)]
