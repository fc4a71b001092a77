"""Decodes images to RGB, and names the defect of an image that cannot be used."""

import hashlib
import io
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from smpo.core.errors import DataError
from smpo.data.image_text import without_text

MAX_PIXELS = 89_478_485  # pillow's limit against decompression bombs (256 MiB of RGB), where it only warns
KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # pillow has 40 more; one of them runs Ghostscript


class ImageError(DataError):
    """An image that cannot be used; `reason` is the code with which its pair is dropped."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def content_uid(data: bytes) -> str:
    """Name of an image by its content: the first 128 bits of the SHA-256 of its encoded bytes, in hex."""
    return hashlib.sha256(data).hexdigest()[:32]


def decode_image(data: bytes) -> Image.Image:
    """The image in the encoded bytes `data`, converted by `upright_rgb`; of an animation the first frame.

    Raises:
        ImageError: the bytes are no image or are truncated, or the image has more than MAX_PIXELS pixels.
    """
    return upright_rgb(_open(data))


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, upright.

    The EXIF orientation is applied and transparent pixels are put on white. Palette, grey, CMYK and 16-bit images are
    converted; 16-bit grey is divided by 257, so that 65535 becomes 255.

    Raises:
        ImageError: the file is truncated, or the image has float pixels or more than MAX_PIXELS pixels.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError("oversized_image", f"image has {width} x {height} px, the limit is {MAX_PIXELS} px; resize it")
    try:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Exception as error:  # pillow's decoders raise many kinds of errors for damaged files
        raise ImageError("truncated_image", f"image is truncated or damaged ({error}); replace the file") from error


@cache
def known_kinds() -> tuple[str, ...]:
    """The KINDS that the installed pillow can read; AVIF needs a recent pillow."""
    Image.init()
    return tuple(kind for kind in KINDS if kind in Image.OPEN)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(without_text(data)), formats=known_kinds())
    except Image.DecompressionBombError as error:
        raise ImageError("oversized_image", f"image is above the limit of {MAX_PIXELS} px; resize it") from error
    except Image.UnidentifiedImageError as error:
        kind = f"{len(data)} bytes that start with {data[:8].hex()}" if data else "0 bytes"
        raise ImageError("undecodable_image", f"no {', '.join(known_kinds())} image ({kind}); replace it") from error
    except Exception as error:  # for a truncated header, the parser of the format raises its own errors
        raise ImageError("truncated_image", f"image is truncated or damaged ({error}); replace the file") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("undecodable_image", "image has float pixels, whose range is unknown; convert it to 8 bit")
    if image.mode.startswith("I"):  # pillow would clip 16-bit values at 255 instead of scaling them
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
