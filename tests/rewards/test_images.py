"""Images of every kind at the scorers' own entry: what decode_image makes of a file, a scorer makes of the image."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smpo.data import images
from smpo.data.images import ImageError, decode_image
from smpo.rewards.clip import ClipScore
from smpo.rewards.preprocessing import LongestSide, ShortestSide
from tests.data.pictures import encoded, picture

PIPELINES = (ShortestSide(), ShortestSide(library="torchvision"), LongestSide())
each_pipeline = pytest.mark.parametrize("pipeline", PIPELINES, ids=["transformers", "torchvision", "longest"])


def transparent() -> Image.Image:
    """Half of it has an alpha below 255 over random colours."""
    rgba = np.dstack([np.asarray(picture(0, (60, 40))), np.full((40, 60), 255, np.uint8)])
    rgba[:, 30:, 3] = 40
    return Image.fromarray(rgba)


def turned() -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.open(io.BytesIO(encoded(picture(1, (60, 40)), exif=exif.tobytes())))


def palette() -> Image.Image:
    return picture(2, (60, 40)).quantize(16)


def transparent_palette() -> Image.Image:
    image = palette()
    image.info["transparency"] = 3
    return image


def deep() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 65536, (40, 60), dtype=np.uint16))


KINDS = {
    "grey": picture(4, (60, 40)).convert("L"), "bilevel": picture(4, (60, 40)).convert("1"), "palette": palette(),
    "transparent palette": transparent_palette(), "transparent": transparent(), "16 bit": deep(),
    "cmyk": picture(5, (60, 40)).convert("CMYK"), "turned": turned(), "one pixel": picture(6, (1, 1)),
    "one row": picture(7, (300, 1)), "grey and alpha": transparent().convert("LA"),
}


def saved_and_decoded(image: Image.Image) -> Image.Image:
    """The image as the stages get it: from the bytes of a file."""
    options = {"exif": image.info["exif"]} if "exif" in image.info else {}
    return decode_image(encoded(image, "TIFF" if image.mode == "CMYK" else "PNG", **options))


@each_pipeline
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_and_its_file_give_the_same_pixels(kind: str, pipeline: ShortestSide | LongestSide):
    values = pipeline(KINDS[kind])
    assert torch.equal(values, pipeline(saved_and_decoded(KINDS[kind])))
    assert values.shape == (3, 224, 224) and torch.isfinite(values).all()


@each_pipeline
def test_what_is_under_full_transparency_does_not_matter(pipeline: ShortestSide | LongestSide):
    """Everybody sees white there; dropping the alpha channel, as the originals do, would show the colours below."""
    hidden = np.dstack([np.asarray(picture(8, (64, 64))), np.zeros((64, 64), np.uint8)])
    assert torch.equal(pipeline(Image.fromarray(hidden)), pipeline(Image.new("RGB", (64, 64), "white")))


@each_pipeline
def test_an_opaque_alpha_channel_changes_nothing(pipeline: ShortestSide | LongestSide):
    image = picture(9, (80, 64))
    assert torch.equal(pipeline(image.convert("RGBA")), pipeline(image))


@each_pipeline
def test_a_turned_photo_is_set_upright(pipeline: ShortestSide | LongestSide):
    upright = picture(1, (60, 40)).rotate(270, expand=True)
    assert torch.equal(pipeline(turned()), pipeline(upright))


@each_pipeline
def test_one_pixel_becomes_a_plain_image(pipeline: ShortestSide | LongestSide):
    values = pipeline(Image.new("RGB", (1, 1), (10, 200, 90)))
    assert all(channel.max() - channel.min() < 1e-5 for channel in values)


@each_pipeline
def test_16_bit_grey_is_scaled_and_not_clipped(pipeline: ShortestSide | LongestSide):
    half = Image.fromarray(np.full((8, 8), 32896, np.uint16))  # 128 * 257
    assert torch.equal(pipeline(half), pipeline(Image.new("RGB", (8, 8), (128, 128, 128))))


@each_pipeline
def test_a_truncated_file_opened_lazily_is_named_as_such(pipeline: ShortestSide | LongestSide):
    data = encoded(picture(3, (64, 64)), "JPEG")
    with pytest.raises(ImageError, match="^image is truncated or damaged .*; replace the file$") as caught:
        pipeline(Image.open(io.BytesIO(data[: len(data) // 2])))
    assert caught.value.reason == "truncated_image"


@each_pipeline
def test_too_many_pixels_are_refused_before_they_are_decoded(
    pipeline: ShortestSide | LongestSide, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(images, "MAX_PIXELS", 2399)
    with pytest.raises(ImageError, match="^image has 60 x 40 px, the limit is 2399 px; resize it$"):
        pipeline(picture(3, (60, 40)))


def test_a_large_image_is_scored():
    """12 Mpx, the size of a telephone's photo, by either pipeline."""
    large = Image.new("RGB", (4000, 3000), (10, 200, 90))
    assert all(pipeline(large).shape == (3, 224, 224) for pipeline in PIPELINES)


def test_too_narrow_an_image():
    """1 x 100,000 px: the short side at 224 px would need 15 GB; padding instead of cropping has no such trouble."""
    narrow = Image.new("RGB", (100_000, 1))
    with pytest.raises(ImageError) as caught:
        ShortestSide()(narrow)
    assert str(caught.value) == (
        "image of 100000 x 1 px is too narrow: with its short side at 224 px the long one has 22400000 px; crop it")
    assert LongestSide()(narrow).shape == (3, 224, 224)


def test_a_scorer_takes_them_all_in_one_batch(clip_folder: Path):
    """Size 32 px; each image's score is the score of its decoded file."""
    scorer = ClipScore(source=str(clip_folder))
    pictures, prompts = list(KINDS.values()), ["cat"] * len(KINDS)
    assert torch.equal(scorer(pictures, prompts), scorer([saved_and_decoded(image) for image in pictures], prompts))
