"""Images of several sets side by side, of the same prompt and seed, with their scores."""

from collections.abc import Mapping
from dataclasses import dataclass

from smpo.core.errors import DataError
from smpo.evaluation.scores import ImageScores
from smpo.sampling.image_set import ImageSet, SealedImage


@dataclass(frozen=True)
class BeforeAfter:
    """The images that two models generated from one prompt and seed.

    Attributes:
        index: place of the images in both sets.
        prompt: the prompt.
        seed: seed of the noise.
        before: image file of the baseline.
        after: image file of the model.
        scores: scorer -> (score before, score after).
    """

    index: int
    prompt: str
    seed: int
    before: SealedImage
    after: SealedImage
    scores: Mapping[str, tuple[float, float]]

    def gap(self, scorer: str) -> float:
        """Score after minus score before."""
        before, after = self.scores[scorer]
        return after - before


def before_after(
    before: tuple[ImageSet, ImageScores], after: tuple[ImageSet, ImageScores], *, limit: int = 48
) -> tuple[BeforeAfter, ...]:
    """At most `limit` examples at equal distances in the set; scores play no part in the choice.

    Raises:
        DataError: the sets differ in prompts or seeds.
    """
    (images, scores), (new_images, new_scores) = before, after
    if (images.prompts, images.seeds) != (new_images.prompts, new_images.seeds):
        raise DataError(f"{new_images.folder} and {images.folder} differ in prompts or seeds; generate both alike")
    return tuple(
        BeforeAfter(
            i, images.prompts[i], images.seeds[i], images.data(i), new_images.data(i),
            {name: (float(column[i]), float(new_scores.scores[name][i])) for name, column in scores.scores.items()},
        )
        for i in spread_evenly(len(images), limit)
    )


@dataclass(frozen=True)
class GridRow:
    """The images of all models from one prompt and seed: model -> image file, model -> scorer -> score."""

    prompt: str
    files: Mapping[str, SealedImage]
    scores: Mapping[str, Mapping[str, float]]


def grid_rows(sets: Mapping[str, tuple[ImageSet, ImageScores]], *, limit: int = 5) -> tuple[GridRow, ...]:
    """At most `limit` rows at equal distances in the sets, chosen as in `before_after`."""
    first = next(iter(sets.values()))[0]
    return tuple(
        GridRow(
            first.prompts[i], {name: images.data(i) for name, (images, _) in sets.items()},
            {name: {s: float(column[i]) for s, column in table.scores.items()} for name, (_, table) in sets.items()},
        )
        for i in spread_evenly(len(first), limit)
    )


def spread_evenly(count: int, limit: int) -> list[int]:
    """At most `limit` of 0 ... count - 1, at equal distances."""
    chosen = min(limit, count)
    return [i * count // chosen for i in range(chosen)]
