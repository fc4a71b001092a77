"""Thumbnails inside pages."""

import base64
import io

import numpy as np
from PIL import Image

from smpo.report.plots import webp_thumbnail


def test_large_images_are_reduced() -> None:
    """Noise is the worst case for a codec: still below 15 KB."""
    noise = np.random.default_rng(0).integers(0, 256, size=(512, 768, 3), dtype=np.uint8)
    data = base64.b64decode(webp_thumbnail(Image.fromarray(noise), quality=60))
    assert Image.open(io.BytesIO(data)).size == (160, 107) and len(data) < 15_000
