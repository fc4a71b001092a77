"""decode_image: every kind of file to the same RGB pixels, and every damage named."""

import json

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from smpo.core.errors import DataError
from smpo.data import images
from smpo.data.image_text import without_text
from smpo.data.images import ImageError, content_uid, decode_image
from tests.data.pictures import encoded, picture, png


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_rgb_png_is_returned_exactly():
    image = picture(0)
    decoded = decode_image(encoded(image))
    assert decoded.mode == "RGB"
    assert np.array_equal(pixels(decoded), pixels(image))


def test_exif_orientation_is_applied():
    """Orientation 6 = the camera was turned: the stored image has to be rotated by 270 degrees counter-clockwise."""
    image = picture(1, (30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_image(encoded(image, exif=exif.tobytes()))
    assert decoded.size == (20, 30)
    assert np.array_equal(pixels(decoded), np.rot90(pixels(image), 3))


def test_alpha_is_composited_on_white():
    """A black pixel of alpha 0 is white, of alpha 255 black, of alpha 51 = 1/5 is 255 * 4/5 = 204."""
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = [0, 255, 51]
    assert pixels(decode_image(encoded(Image.fromarray(rgba))))[0, :, 0].tolist() == [255, 0, 204]


def test_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    decoded = decode_image(encoded(image, transparency=0))
    assert pixels(decoded).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_grey_with_alpha():
    image = Image.fromarray(np.array([[[100, 255], [100, 0]]], dtype=np.uint8), "LA")
    assert pixels(decode_image(encoded(image)))[0, :, 1].tolist() == [100, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_palette_and_grey_become_rgb(mode: str):
    image = picture(2).convert(mode)
    decoded = decode_image(encoded(image))
    assert decoded.mode == "RGB"
    assert np.array_equal(pixels(decoded), pixels(image.convert("RGB")))


def test_cmyk_jpeg_becomes_rgb():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    assert np.abs(pixels(decode_image(encoded(image, "JPEG", quality=95)))[4, 4] - [255, 0, 0]).max() <= 3


def test_16_bit_grey_is_scaled_not_clipped():
    """0, 257, 32896, 65535 are 0, 1, 128, 255 times 257; pillow itself would give 255 for all but the first."""
    image = Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16))
    assert pixels(decode_image(encoded(image)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    decoded = decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixels(decoded)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_truncated_file_raises(format: str, fraction: float):
    data = encoded(picture(3, (64, 64)), format)
    with pytest.raises(ImageError) as caught:
        decode_image(data[: int(len(data) * fraction)])
    assert caught.value.reason in ("truncated_image", "undecodable_image")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("data", "message"), [
    (b"", "no PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF image (0 bytes); replace it"),
    (b"<html>not found</html>",
     "no PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF image (22 bytes that start with 3c68746d6c3e6e6f); replace it"),
])
def test_undecodable_bytes(data: bytes, message: str):
    with pytest.raises(DataError) as caught:
        decode_image(data)
    assert str(caught.value) == message
    assert caught.value.reason == "undecodable_image"


def test_truncated_jpeg_message():
    data = encoded(picture(3, (64, 64)), "JPEG")
    with pytest.raises(ImageError, match=r"^image is truncated or damaged \(image file is trunc.*\); replace the file"):
        decode_image(data[: len(data) // 2])


def test_every_cut_of_a_small_png_is_an_error():
    """Whatever the place of the cut, the error is ours. The last 20 bytes are checksums and the end mark: no pixels."""
    data = png(4, (4, 4))
    for length in range(len(data) - 20):
        with pytest.raises(ImageError):
            decode_image(data[:length])


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 383)
    with pytest.raises(ImageError) as caught:
        decode_image(png(0))
    assert str(caught.value) == "image has 24 x 16 px, the limit is 383 px; resize it"
    assert caught.value.reason == "oversized_image"


def test_decompression_bomb_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch):
    """Pillow itself refuses an image of more than twice its limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError) as caught:
        decode_image(png(0))
    assert caught.value.reason == "oversized_image"
    assert str(caught.value) == "image is above the limit of 89478485 px; resize it"


def test_float_pixels_are_refused():
    with pytest.raises(ImageError, match="float pixels"):
        decode_image(encoded(Image.new("F", (4, 4)), "TIFF"))


def test_content_uid():
    """sha256("") starts with e3b0c44298fc1c14."""
    assert content_uid(b"") == "e3b0c44298fc1c149afbf4c8996fb924"


def test_only_the_named_kinds_are_opened():
    """Of an EPS, pillow would run Ghostscript; ICO, PPM and 40 others are nobody's training data."""
    assert images.known_kinds()[:6] == ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
    for format in ("EPS", "PPM", "ICO", "PDF"):
        with pytest.raises(ImageError, match="no PNG, JPEG, .* image"):
            decode_image(encoded(picture(0), format))


def workflow(size: int, zip: bool) -> PngImagePlugin.PngInfo:
    """Texts as ComfyUI writes them, of `size` characters that do not compress to nothing."""
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", json.dumps({"nodes": [str(i) for i in range(size // 10)]}), zip=zip)
    info.add_itxt("prompt", "x" * size, zip=zip)
    return info


@pytest.mark.parametrize("zip", [True, False])
def test_a_png_with_megabytes_of_workflow_is_sound(zip: bool):
    data = encoded(picture(1), pnginfo=workflow(3_000_000, zip))
    assert np.array_equal(pixels(decode_image(data)), pixels(picture(1)))
    with pytest.raises(ImageError):
        decode_image(data[:len(data) // 2])


def test_orientation_in_a_text_is_kept():
    """ImageMagick writes EXIF into a text chunk; XMP is one, too."""
    xmp = "<x:xmpmeta xmlns:x='adobe:ns:meta/'><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    info.add_text("parameters", "a cat\nSteps: 20")
    assert decode_image(encoded(picture(1, (30, 20)), pnginfo=info)).size == (20, 30)
    assert without_text(b"GIF89a no png") == b"GIF89a no png"
