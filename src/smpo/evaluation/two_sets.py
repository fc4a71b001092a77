"""Two sets of images compared by one scorer, with intervals. Public as `smpo.compare` and `smpo.compare_images`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from smpo.evaluation.statistics import Interval, WinRate, bootstrap_interval, median_difference, win_rate
from smpo.rewards.scorer import Scorer
from smpo.rewards.scorer_api import load_scorer, score_images

Images = Sequence[Image.Image | Path | str]


@dataclass(frozen=True)
class SetComparison:
    """A model's scores against those of a baseline, paired image by image. Every `Interval` covers 95 %.

    Attributes:
        model: mean score of the model.
        baseline: mean score of the baseline.
        mean_difference: mean of (model - baseline), by a bootstrap over prompts.
        median_difference: median(model) - median(baseline), by a bootstrap over prompts.
        win_rate: share of images on which the model scores higher, its interval and the p value of the sign test.
    """

    model: Interval
    baseline: Interval
    mean_difference: Interval
    median_difference: Interval
    win_rate: WinRate


def compare(model: ArrayLike, baseline: ArrayLike, *, seed: int = 0) -> SetComparison:
    """Whether a model's scores are higher than a baseline's, and by how much.

    Args:
        model: scores of the model's images, shape (n,), or (n, k) for k images of each of n prompts.
        baseline: scores of the baseline's images, for the same prompts (and best the same seeds), same shape.
        seed: of the bootstrap; equal seeds give equal intervals.

    Raises:
        ValueError: shapes differ, there is no score, or a score is not finite.

    Example:
        >>> result = smpo.compare(scores_after, scores_before)
        >>> f"{result.win_rate.rate:.0%} [{result.win_rate.low:.0%}, {result.win_rate.high:.0%}]"
        '63% [58%, 68%]'
    """
    a, b = np.asarray(model, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    won = win_rate(a, b)
    mean, mean_of_baseline, difference = (bootstrap_interval(values, "mean", seed=seed) for values in (a, b, a - b))
    return SetComparison(mean, mean_of_baseline, difference, median_difference(a, b, seed=seed), won)


def compare_images(
    model: Images, baseline: Images, prompts: Sequence[str] | str, *, scorer: Scorer | str, batch_size: int = 32,
    seed: int = 0,
) -> SetComparison:
    """`compare` of the scores that `scorer` gives to n images of a model and n of a baseline.

    Args:
        model: images of the model, each a PIL image or the path of a file.
        baseline: images of the baseline for the same prompts, in the same order.
        prompts: one prompt for each image, or one for all.
        scorer: what `load_scorer` gives, or the name of a scorer.
        batch_size: images that go through the scorer together.
        seed: of the bootstrap.

    Raises:
        ValueError: the numbers of images and prompts differ, or are 0.
        DataError: an image cannot be decoded, or the scorer's files cannot be loaded.
    """
    scorer = load_scorer(scorer) if isinstance(scorer, str) else scorer
    scores = (score_images(scorer, images, prompts, batch_size=batch_size) for images in (model, baseline))
    return compare(*scores, seed=seed)
