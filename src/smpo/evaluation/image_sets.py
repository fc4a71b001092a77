"""The whole evaluation of image sets: scores, appearance and their comparison."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from smpo.core.artefacts import read_manifest
from smpo.core.errors import DataError, StaleError
from smpo.evaluation.appearance import Appearance, measure_images
from smpo.evaluation.compare import Comparison, compare
from smpo.evaluation.indicators import diversity, drifts
from smpo.evaluation.scores import STAGE, evaluate_images
from smpo.rewards.blocks import Progress
from smpo.rewards.options import ScoringOptions
from smpo.rewards.scorer import Scorer
from smpo.sampling.image_set import ImageSet

APPEARANCE = "appearance"


def compare_image_sets(
    sets: Mapping[str, ImageSet], scorers: Mapping[str, Scorer], out: Path, *, baseline: str,
    training_reward: str | None = None, protocol: str = "all",
) -> Comparison:
    """Score and measure image sets, then compare them. Results in `out` are used again.

    Args:
        sets: name -> image set; all of the same prompts and seeds.
        scorers: name -> scorer.
        out: folder of the evaluations; each set gets a subfolder of its name.
        baseline: name of the set that the others are compared with.
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
    options: ScoringOptions | None = None, progress: Progress | None = None,
) -> None:
    """Complete the scores and the appearance of one image set in `out`; `progress` gets (task, done, total)."""
    evaluate_images(images, scorers, out, store=store, options=options, progress=progress)
    measure_images(images, out / APPEARANCE, progress=partial(progress, "appearance") if progress else None)


def compare_evaluated(
    sets: Mapping[str, ImageSet], out: Path, *, baseline: str, training_reward: str | None = None,
    protocol: str = "all",
) -> Comparison:
    """The comparison of sets that were scored and measured before; arguments and errors as `compare_image_sets`."""
    folders = {name: out / name for name in sets}
    for name, images in sets.items():
        _check_scored(images, folders[name])
    comparison = compare(
        folders, baseline, training_reward=training_reward, protocol=protocol,
        categories=categories_of(sets[baseline]) if baseline in sets else (),
    )
    looks = {name: Appearance.open(folder / APPEARANCE) for name, folder in folders.items()}
    return dataclasses.replace(comparison, drifts=drifts(looks, baseline), diversity=diversity(looks, baseline))


def _check_scored(images: ImageSet, folder: Path) -> None:
    """StaleError unless `folder` holds the scores of these images; they may have been generated anew since."""
    if read_manifest(folder, stage=STAGE)["inputs"].get("images") != images.fingerprint:
        raise StaleError(
            f"{folder} holds scores of other images than {images.folder}; delete {folder} and run `smpo evaluate`"
        )


def categories_of(images: ImageSet) -> tuple[str, ...]:
    """Category of each image; empty where no prompt has one.

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
