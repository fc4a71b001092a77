"""Small real image files and pair sources for the tests of data, rewards and preparation."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PNG_HEAD = 60  # bytes of a PNG that keep its header but not its pixels


def picture(seed: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A random RGB image of `size` = (width, height)."""
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    return stream.getvalue()


def png(seed: int, size: tuple[int, int] = (24, 16)) -> bytes:
    return encoded(picture(seed, size))


def good_row(index: int) -> dict:
    """Row `index` of a sound Pick-a-Pic source: sizes and labels vary with the index."""
    return {
        "caption": f"a picture of thing {index % 3}",
        "jpg_0": png(2 * index, (24, 16)),
        "jpg_1": png(2 * index + 1, (16, 20 + index % 5)),
        "label_0": float(index % 2),
        "ranking_id": 1000 + index,
        "image_0_uid": f"left-{index}",
        "image_1_uid": f"right-{index}",
        "model_0": "dreamlike",
    }


def write_parquet(file: Path, rows: list[dict], **options) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file, **options)
    return file


def write_jsonl(file: Path, rows: list[dict]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_folders(root: Path, names: list[str]) -> Path:
    for side, offset in (("win", 0), ("lose", 100)):
        (root / side).mkdir(parents=True)
        for index, name in enumerate(names):
            (root / side / f"{name}.png").write_bytes(png(offset + index))
    for name in names:
        (root / "win" / f"{name}.txt").write_text(f"prompt of {name}\n")
    return root
