"""Image files as people have them: every mode and format, damaged ones, traps, and what is no image at all."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from tests.data.pictures import encoded, picture
from tests.fuzz.case import Case
from tests.fuzz.kept import ANY, Kept, Pair, command, image, pair
from tests.fuzz.world import World

KEPT = "kept"
BAD = "undecodable_image|truncated_image"
LARGE = "oversized_image"


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG whose header says so, whatever its rows hold."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _with_text(size: int, *, compressed: bool) -> bytes:
    """A PNG with `size` characters of workflow, as ComfyUI writes them."""
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * size, zip=compressed)
    return encoded(picture(7), pnginfo=info)


def _mode(mode: str, format: str = "PNG") -> bytes:
    return encoded(picture(7).convert(mode), format)


def _sixteen_bit() -> bytes:
    return encoded(Image.fromarray(np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 100))


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(7), "JPEG", exif=exif)


def _animated(format: str) -> bytes:
    stream = io.BytesIO()
    picture(7).save(stream, format, save_all=True, append_images=[picture(8), picture(9)])
    return stream.getvalue()


def _bad_exif() -> bytes:
    return encoded(picture(7), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")


PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "RGB": (lambda: _mode("RGB"), KEPT),
    "grey": (lambda: _mode("L"), KEPT),
    "grey with alpha": (lambda: _mode("LA"), KEPT),
    "palette": (lambda: _mode("P"), KEPT),
    "RGBA": (lambda: _mode("RGBA"), KEPT),
    "1 bit": (lambda: _mode("1"), KEPT),
    "16 bit": (_sixteen_bit, KEPT),
    "JPEG": (lambda: _mode("RGB", "JPEG"), KEPT),
    "grey JPEG": (lambda: _mode("L", "JPEG"), KEPT),
    "CMYK JPEG": (lambda: _mode("CMYK", "JPEG"), KEPT),
    "WebP": (lambda: _mode("RGB", "WEBP"), KEPT),
    "BMP": (lambda: _mode("RGB", "BMP"), KEPT),
    "GIF": (lambda: _mode("P", "GIF"), KEPT),
    "TIFF": (lambda: _mode("RGB", "TIFF"), KEPT),
    "animated GIF": (lambda: _animated("GIF"), KEPT),
    "animated WebP": (lambda: _animated("WEBP"), KEPT),
    "EXIF turned": (_rotated, KEPT),
    "broken EXIF": (_bad_exif, f"{KEPT}|{BAD}"),
    "progressive JPEG": (lambda: encoded(picture(7), "JPEG", progressive=True), KEPT),
    "1 x 1": (lambda: encoded(picture(7, (1, 1))), f"{KEPT}|{ANY}"),
    "text of 1.5 MB": (lambda: _with_text(1_500_000, compressed=False), KEPT),
    "packed text of 1.5 MB": (lambda: _with_text(1_500_000, compressed=True), KEPT),
    "packed text of 60 MB": (lambda: _with_text(60_000_000, compressed=True), f"{KEPT}|{BAD}"),
    "extra bytes at the end": (lambda: image(7) + b"x" * 100, KEPT),
    "1 x 8000": (lambda: encoded(picture(7, (1, 8000))), ANY),
    "8000 x 1": (lambda: encoded(picture(7, (8000, 1))), ANY),
    "2 x 30000": (lambda: encoded(picture(7, (2, 30000))), ANY),
    "a bomb": (lambda: png_of(100_000, 100_000), LARGE),
    "a bomb of one row": (lambda: png_of(2**31 - 1, 1), f"{LARGE}|{BAD}"),
    "0 x 0": (lambda: png_of(0, 0), BAD),
    # Pillow fills the rest with black, as viewers do: the stream ends early, but in good order.
    "rows missing": (lambda: png_of(24, 16, rows=bytes(73)), f"{KEPT}|{BAD}"),
    "no rows": (lambda: png_of(24, 16), BAD),
    "depth 3": (lambda: png_of(24, 16, depth=3), BAD),
    "float TIFF": (lambda: encoded(Image.fromarray(np.ones((16, 24), np.float32)), "TIFF"), BAD),
    "half a PNG": (lambda: image(7)[: len(image(7)) // 2], BAD),
    "head of a PNG": (lambda: image(7)[:40], BAD),
    "signature of a PNG": (lambda: image(7)[:8], BAD),
    "half a JPEG": (lambda: _mode("RGB", "JPEG")[:-400], BAD),
    "half a WebP": (lambda: _mode("RGB", "WEBP")[:100], BAD),
    "half a GIF": (lambda: _mode("P", "GIF")[:820], BAD),
    "nothing": (lambda: b"", f"missing_image|{BAD}"),
    "one byte": (lambda: b"x", BAD),
    "zeros": (lambda: bytes(5000), BAD),
    "text": (lambda: b"a cat sits on a mat\n" * 30, BAD),
    "HTML": (lambda: b"<!DOCTYPE html><html>Not found</html>", BAD),
    "JSON": (lambda: b'{"error": "rate limited"}', BAD),
    "LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", BAD),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', BAD),
    "PDF": (lambda: b"%PDF-1.4\n%%EOF", BAD),
    "EPS": (lambda: _mode("RGB", "EPS"), BAD),
    "EPS that runs": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(hacked) (w) file\nshowpage\n%%EOF",
        BAD,
    ),
    "ZIP": (lambda: b"PK\x03\x04" + bytes(60), BAD),
    "HEIC": (lambda: b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00heicmif1" + bytes(90), BAD),
    "MP4": (lambda: b"\x00\x00\x00\x18ftypmp42" + bytes(90), BAD),
    "base64 text": (lambda: b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ", BAD),
    "PNG in a JPEG's name": (lambda: image(7), KEPT),
    "twice a signature": (lambda: image(7)[:8] + image(7), BAD),
    "CRC of the header wrong": (lambda: image(7)[:29] + bytes([image(7)[29] ^ 1]) + image(7)[30:], BAD),
    "a loose MPO": (lambda: _animated("MPO"), f"{KEPT}|{BAD}"),
    "AVIF": (lambda: b"\x00\x00\x00\x1cftypavif" + bytes(90), BAD),
    "ICO": (lambda: _mode("RGBA", "ICO"), f"{KEPT}|{BAD}"),
    "PPM": (lambda: _mode("RGB", "PPM"), f"{KEPT}|{BAD}"),
    "PSD": (lambda: b"8BPS\x00\x01" + bytes(60), BAD),
    "WMF": (lambda: b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(80), BAD),
    "FITS": (lambda: b"SIMPLE  =                    T" + b" " * 3000, BAD),
    "lone GIF header": (lambda: b"GIF89a", BAD),
    "JPEG markers alone": (lambda: b"\xff\xd8\xff\xd9", BAD),
    "GIF of 65535 x 65535": (lambda: b"GIF89a\xff\xff\xff\xff\x00\x00\x00;", f"{LARGE}|{BAD}"),
}


def picture_case(name: str, data: Callable[[], bytes], outcome: str, *, side: str = "chosen") -> Case:
    """Two sound pairs, and a third whose `side` is this file."""

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.write_recipe(cwd)
        lines = []
        for number in range(3):
            for word, offset in (("chosen", 0), ("rejected", 1)):
                content = data() if number == 2 and word == side else image(20 + 2 * number + offset)
                (cwd / f"{number}-{word}.png").write_bytes(content)
            lines.append(
                f'{{"prompt": "thing {number}", "chosen": "{number}-chosen.png", "rejected": "{number}-rejected.png"}}'
            )
        (cwd / "pairs.jsonl").write_text("\n".join(lines))
        return [command("pairs.jsonl")]

    return Case(
        f"picture {name} as {side}",
        make,
        _Kept(data, outcome, side),
        "https://github.com/python-pillow/Pillow/issues/8363" if "text" in name else "",
    )


class _Kept:
    """Keeps the sound pairs, and the third or not, as `outcome` says."""

    def __init__(self, data: Callable[[], bytes], outcome: str, side: str) -> None:
        self.data, self.outcome, self.side = data, outcome, side

    def complaints(self, results: list, made: object) -> list[str]:
        """See `Expectation`."""
        sound = [pair(f"thing {n}", image(20 + 2 * n), image(21 + 2 * n)) for n in range(2)]
        reasons = "|".join(one for one in self.outcome.split("|") if one != KEPT)
        dropped = Kept(sound, {reasons or "nothing": 1}).complaints(results, made)
        if KEPT not in self.outcome.split("|"):
            return dropped
        kept = Kept([*sound, self._third()]).complaints(results, made)
        return [] if not kept or (reasons and not dropped) else kept

    def _third(self) -> Pair:
        data = self.data()
        return pair("thing 2", data, image(25)) if self.side == "chosen" else pair("thing 2", image(24), data)


def fixed() -> list[Case]:
    """Every file on either side of a pair."""
    return [
        picture_case(name, data, outcome, side=side)
        for side in ("chosen", "rejected")
        for name, (data, outcome) in PICTURES.items()
        if side == "chosen" or outcome in (BAD, ANY)
    ]


def at_random(rng: random.Random) -> Case:
    """A sound file with a piece cut out, or cut short: never a traceback; what is kept, is kept as it is."""
    name = rng.choice(["RGB", "JPEG", "WebP", "GIF", "TIFF", "BMP", "RGBA", "16 bit", "CMYK JPEG"])
    start, length = rng.random(), rng.random() * 0.2

    def damaged() -> bytes:
        data = PICTURES[name][0]()
        place = int(start * len(data))
        return data[:place] + data[place + max(1, int(length * len(data))) :]

    return picture_case(
        f"{name} without {length:.3f} at {start:.4f}", damaged, f"{KEPT}|{ANY}", side=rng.choice(["chosen", "rejected"])
    )
