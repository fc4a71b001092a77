"""Images of two sets side by side: the same prompt, the same seed, both scores."""

from collections.abc import Mapping
from dataclasses import dataclass

from smpo.core.errors import DataError
from smpo.evaluation.scores import ImageScores
from smpo.sampling.image_set import ImageSet, SealedImage


@dataclass(frozen=True)
class BeforeAfter:
    """One prompt and seed, painted by two models.

    Attributes:
        index: of the image in both sets.
        prompt: what was asked for.
        seed: of the noise.
        before: image file of the baseline.
        after: image file of the model.
        scores: scorer -> (before, after).
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
    """At most `limit` examples, spread evenly over the prompts: chosen by place, never by score.

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
    """One prompt and seed, painted by every model: model -> image file, model -> scorer -> score."""

    prompt: str
    files: Mapping[str, SealedImage]
    scores: Mapping[str, Mapping[str, float]]


def grid_rows(sets: Mapping[str, tuple[ImageSet, ImageScores]], *, limit: int = 5) -> tuple[GridRow, ...]:
    """At most `limit` rows, spread evenly over the images as `before_after` are."""
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
