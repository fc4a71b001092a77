"""Figures as files of a report, one per theme, and images inside a page."""

import base64
import io
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure
from PIL import Image

from smpo.report.theme import LIGHT, THEMES, Theme, save

THUMBNAIL_PX = 160


@dataclass(frozen=True)
class Plot:
    """A figure as files: theme -> path relative to the report; `width` is that of the page's image, px."""

    name: str
    title: str
    caption: str
    files: Mapping[str, str]
    width: int


class Chart(Protocol):
    """Makes one figure in the colours of a theme."""

    def __call__(self, *, theme: Theme) -> Figure:
        """The figure."""
        ...


def write_plot(out: Path, name: str, title: str, caption: str, chart: Chart) -> Plot:
    """The figure of `chart`, written to `out`/figures in every theme."""
    files = {theme.name: f"figures/{name}-{theme.name}.png" for theme in THEMES}
    for theme in THEMES:
        save(chart(theme=theme), out / files[theme.name])
    with Image.open(out / files[LIGHT.name]) as image:
        width = image.width * 5 // 8  # 100 px of the page per inch: sharp on dense screens too
    return Plot(name, title, caption, files, width)


def data_uri(path: Path) -> str:
    """The file as a data URI."""
    return encoded(mimetypes.guess_type(path.name)[0] or "image/png", path.read_bytes())


def encoded(kind: str, content: bytes) -> str:
    """A data URI of media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def webp_thumbnail(image: Image.Image, *, quality: int) -> str:
    """Base64 of `image` as WebP of at most THUMBNAIL_PX a side; a smaller image is kept lossless."""
    small, buffer = max(image.size) <= THUMBNAIL_PX, io.BytesIO()
    if not small:
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    image.save(buffer, "WEBP", lossless=small, quality=quality)
    return base64.b64encode(buffer.getvalue()).decode()
