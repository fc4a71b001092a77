"""Near-duplicates: changed copies, and clusters against brute force."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from smpo.audit.perceptual import Descriptors, describe_image, near, near_clusters
from tests.data.pictures import encoded


def scene(seed: int, size: int = 256) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, size=(6, 6, 3), dtype=np.uint8)).resize((size, size), 3)
    ImageDraw.Draw(image).ellipse(tuple(size * np.sort(rng.random(4)) * 0.9), fill=tuple(rng.integers(0, 256, 3)))
    return image


def descriptors(images: list[Image.Image]) -> Descriptors:
    result = [describe_image(image) for image in images]
    return Descriptors(np.array([h for h, _ in result], dtype=np.uint64), np.stack([c for _, c in result]))


@pytest.mark.parametrize("change", [
    lambda image: image.resize((512, 512), Image.Resampling.BICUBIC),
    lambda image: image.resize((100, 100), Image.Resampling.LANCZOS),
    lambda image: ImageEnhance.Brightness(image).enhance(1.05),
    lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=60))),
])
def test_changed_copies_are_near_and_other_images_are_not(change) -> None:
    originals = [scene(seed) for seed in range(30)]
    a, b = descriptors(originals), descriptors([change(image) for image in originals])
    assert near(a, b).mean() >= 0.9
    for shift in range(1, 30):
        assert not near(a, Descriptors(np.roll(a.hashes, shift), np.roll(a.colours, shift, axis=0))).any()


def test_colour_tells_apart_what_grey_cannot() -> None:
    """Two flat images have no structure at all; a scene and its colour-swapped twin have the same."""
    flat = descriptors([Image.new("RGB", (64, 64), c) for c in ("red", "green")])
    assert flat.hashes.tolist() == [0, 0] and not near(*(Descriptors(flat.hashes[i:i + 1], flat.colours[i:i + 1])
                                                         for i in (0, 1))).any()


def test_clusters_equal_brute_force() -> None:
    """Random hashes with planted neighbours up to six bits away, over every stretch of the hash."""
    rng = np.random.default_rng(4)
    centres = rng.integers(0, 2**63, size=80, dtype=np.uint64)
    hashes = []
    for centre in centres:
        for _ in range(rng.integers(1, 5)):
            flips = rng.choice(63, rng.integers(0, 7), replace=False)
            hashes.append(int(centre) ^ int(sum(1 << int(f) for f in flips)))
    images = Descriptors(np.array(hashes, dtype=np.uint64), rng.integers(0, 20, (len(hashes), 48), dtype=np.uint8))
    labels = near_clusters(images)
    n = len(images)
    bits = np.bitwise_count(images.hashes[:, None] ^ images.hashes)
    linked = bits <= 4
    for _ in range(8):
        linked = (linked.astype(int) @ linked.astype(int)) > 0
    np.testing.assert_array_equal(labels[:, None] == labels, linked)
    assert 80 <= len(set(labels.tolist())) < n
    assert all(labels[label] == label <= i for i, label in enumerate(labels.tolist()))


def test_many_equal_images_stay_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 copies would be two million edges: they are joined on the way."""
    monkeypatch.setattr("smpo.audit.perceptual.EDGES_AT_ONCE", 5000)
    copies = Descriptors(np.full(2000, 7, dtype=np.uint64), np.zeros((2000, 48), dtype=np.uint8))
    assert near_clusters(copies).tolist() == [0] * 2000


def test_four_flips_far_apart_are_still_near() -> None:
    """One flip in every quarter of the hash: only a fifth stretch is left untouched, wherever the flips fall."""
    rng = np.random.default_rng(5)
    flips = [sorted(int(16 * quarter + rng.integers(0, 15)) for quarter in range(4)) for _ in range(200)]
    for places in flips:
        hashes = np.array([0, sum(1 << place for place in places)], dtype=np.uint64)
        assert near_clusters(Descriptors(hashes, np.zeros((2, 48), dtype=np.uint8))).tolist() == [0, 0]
