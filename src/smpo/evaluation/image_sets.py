"""The whole evaluation in one call: scores, appearance and the comparison of image sets."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from smpo.core.artefacts import read_manifest
from smpo.core.errors import DataError, StaleError
from smpo.evaluation.appearance import Appearance, measure_images
from smpo.evaluation.compare import Comparison, compare
from smpo.evaluation.indicators import diversity, drifts
from smpo.evaluation.scores import STAGE, evaluate_images
from smpo.rewards.options import ScoringOptions
from smpo.rewards.scorer import Scorer
from smpo.sampling.image_set import ImageSet

APPEARANCE = "appearance"


def compare_image_sets(
    sets: Mapping[str, ImageSet], scorers: Mapping[str, Scorer], out: Path, *, baseline: str,
    training_reward: str | None = None, protocol: str = "all",
) -> Comparison:
    """The comparison of image sets, scored and measured into `out`/name; what is there already is not done again.

    Args:
        sets: name -> image set; all of the same prompts and seeds.
        scorers: name -> scorer.
        out: folder of the evaluations.
        baseline: the set that the others are measured against.
        training_reward: scorer that made the training labels.
        protocol: see `compare`.

    Raises:
        ConfigError, DataError, StaleError: as `evaluate_images` and `compare`.
    """
    for name, images in sets.items():
        score_and_measure(images, scorers, out / name)
    return compare_evaluated(sets, out, baseline=baseline, training_reward=training_reward, protocol=protocol)


def score_and_measure(
    images: ImageSet, scorers: Mapping[str, Scorer], out: Path, *, store: Path | None = None,
    options: ScoringOptions | None = None, progress: Callable[..., None] | None = None,
) -> None:
    """Complete the scores and the appearance of one image set in `out`; `progress` gets (what, done, total)."""
    evaluate_images(images, scorers, out, store=store, options=options, progress=progress)
    shown = None if progress is None else (lambda done, total: progress("appearance", done, total))
    measure_images(images, out / APPEARANCE, progress=shown)


def compare_evaluated(
    sets: Mapping[str, ImageSet], out: Path, *, baseline: str, training_reward: str | None = None,
    protocol: str = "all",
) -> Comparison:
    """The comparison of sets that are scored and measured already; arguments and errors as `judge`."""
    folders = {name: out / name for name in sets}
    for name, images in sets.items():
        _check_scored(images, folders[name])
    compared = compare(
        folders, baseline, training_reward=training_reward, protocol=protocol,
        categories=categories_of(sets[baseline]) if baseline in sets else (),
    )
    looks = {name: Appearance.open(folder / APPEARANCE) for name, folder in folders.items()}
    return dataclasses.replace(compared, drifts=drifts(looks, baseline), diversity=diversity(looks, baseline))


def _check_scored(images: ImageSet, folder: Path) -> None:
    """StaleError unless `folder` holds the scores of just these images: they may have been drawn anew since."""
    if read_manifest(folder, stage=STAGE)["inputs"].get("images") != images.fingerprint:
        raise StaleError(
            f"{folder} holds the scores of other images than {images.folder}; delete {folder} and run `smpo evaluate`"
        )


def categories_of(images: ImageSet) -> tuple[str, ...]:
    """Category of each image; empty where the prompts have none.

    Raises:
        DataError: some prompts have a category and some have none.
    """
    known = [category is not None for category in images.categories]
    if not any(known):
        return ()
    if not all(known):
        raise DataError(
            f"{images.folder}: image {known.index(False)} has no category, others have; give all prompts one, or none"
        )
    return tuple(str(category) for category in images.categories)
