"""Scorers for Python users: by name, on images and prompts. Public as `smpo.load_scorer` and `smpo.score_images`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smpo.data.images import decode_image
from smpo.rewards import SCORERS
from smpo.rewards.scorer import Scorer


def load_scorer(name: str, **settings: Any) -> Scorer:
    """The scorer `name` with its published defaults, or with other settings.

    Nothing is downloaded or loaded before the first score.

    Args:
        name: "pickscore", "hpsv2", "imagereward", "aesthetic", "clip" or "verifier".
        settings: for example `source` (hub id or folder of the weights), `dtype` or `device`; docs/scorers.md lists
            those of each scorer.

    Raises:
        ConfigError: there is no such scorer or setting, or a value cannot be used.

    Example:
        >>> scorer = smpo.load_scorer("pickscore", device="cuda")
        >>> scorer.units
        'cosine'
    """
    return SCORERS.build({"name": name, **settings})


def score_images(
    scorer: Scorer | str, images: Sequence[Image.Image | Path | str], prompts: Sequence[str] | str, *,
    batch_size: int = 32,
) -> np.ndarray:
    """Scores of images for their prompts.

    Args:
        scorer: what `load_scorer` gives, or the name of a scorer with its defaults.
        images: n images, each a PIL image or the path of a file. Files are read one batch at a time.
        prompts: one prompt for each image, or one prompt for all.
        batch_size: images that go through the model together, >= 1. It changes a score by float rounding only.

    Returns:
        Scores of shape (n,), float32, in the scorer's `units`.

    Raises:
        ValueError: there is no image, the numbers of images and prompts differ, or `batch_size` is < 1.
        DataError: an image cannot be decoded, or the scorer's files cannot be loaded.
        OSError: an image file cannot be opened.
    """
    scorer = load_scorer(scorer) if isinstance(scorer, str) else scorer
    texts = [prompts] * len(images) if isinstance(prompts, str) else list(prompts)
    if len(texts) != len(images) or not texts:
        raise ValueError(f"expected one prompt per image, got {len(images)} images and {len(texts)} prompts")
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    batches = [slice(start, start + batch_size) for start in range(0, len(texts), batch_size)]
    scores = [scorer([_opened(image) for image in images[batch]], texts[batch]).numpy() for batch in batches]
    return np.concatenate(scores)


def _opened(image: Image.Image | Path | str) -> Image.Image:
    return image if isinstance(image, Image.Image) else decode_image(Path(image).expanduser().read_bytes())
