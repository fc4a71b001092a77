"""Contact sheets: images side by side, each with a short label below it."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

CELL_PX = 192  # smaller images are enlarged to this width
FONT_PX = 13
CHARACTER_PX = 6.6  # mean width of a character of the built-in font at 13 px
GAP_PX = 12
TEXT_PX = 38  # two lines


def contact_sheet(tiles: Sequence[Image.Image], labels: Sequence[str], *, columns: int = 4) -> Image.Image:
    """One RGB image with `tiles` of equal size in rows of `columns`; the label below each is cut to two lines."""
    columns, rows = min(columns, len(tiles)), -(-len(tiles) // columns)
    scale = max(1.0, CELL_PX / tiles[0].width)
    width, height = round(tiles[0].width * scale), round(tiles[0].height * scale)
    step_x, step_y = width + GAP_PX, height + TEXT_PX + GAP_PX
    font = ImageFont.load_default(FONT_PX)
    sheet = Image.new("RGB", (GAP_PX + columns * step_x, GAP_PX + rows * step_y), "white")
    canvas = ImageDraw.Draw(sheet)
    for i, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left, top = GAP_PX + (i % columns) * step_x, GAP_PX + (i // columns) * step_y
        sheet.paste(tile.resize((width, height), Image.Resampling.BICUBIC), (left, top))
        lines = textwrap.wrap(label, width=int(width / CHARACTER_PX), max_lines=2, placeholder=" ...")
        canvas.multiline_text((left, top + height + 4), "\n".join(lines), fill="#333333", font=font)
    return sheet
