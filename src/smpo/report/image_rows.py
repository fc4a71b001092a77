"""Images of several models side by side, of the same prompt and seed, with their scores."""

from collections.abc import Mapping
from dataclasses import dataclass

from smpo.core.errors import DataError
from smpo.evaluation.scores import ImageScores
from smpo.sampling.image_set import ImageSet, SealedImage

Evaluated = Mapping[str, tuple[ImageSet, ImageScores]]
"""Model -> its images and their scores."""


@dataclass(frozen=True)
class ImageRow:
    """The images that several models generated from one prompt and seed.

    Attributes:
        index: place of the images in their sets.
        prompt: the prompt.
        seed: seed of the noise.
        files: model -> image file.
        scores: model -> scorer -> score.
    """

    index: int
    prompt: str
    seed: int
    files: Mapping[str, SealedImage]
    scores: Mapping[str, Mapping[str, float]]

    def gap(self, scorer: str, model: str, baseline: str) -> float:
        """Score of `model` minus score of `baseline`."""
        return self.scores[model][scorer] - self.scores[baseline][scorer]


def image_rows(sets: Evaluated, *, limit: int = 48) -> tuple[ImageRow, ...]:
    """At most `limit` rows at equal distances in the sets; scores play no part in the choice.

    Raises:
        DataError: the sets differ in prompts or seeds.
    """
    check_same_prompts(sets)
    first = next(iter(sets.values()))[0]
    chosen = min(limit, len(first))
    return tuple(
        ImageRow(
            i, first.prompts[i], first.seeds[i], {name: images.data(i) for name, (images, _) in sets.items()},
            {name: {s: float(column[i]) for s, column in table.scores.items()} for name, (_, table) in sets.items()},
        )
        for i in (place * len(first) // chosen for place in range(chosen))
    )


def check_same_prompts(sets: Evaluated) -> None:
    """DataError unless all sets have the same prompts and seeds."""
    (base, (first, _)), *others = sets.items()
    for name, (images, _) in others:
        if (images.prompts, images.seeds) != (first.prompts, first.seeds):
            raise DataError(f"'{name}' and '{base}' differ in prompts or seeds; generate both alike")
