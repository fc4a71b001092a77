"""Figures as files of a report, one per theme, and files as data URIs."""

import base64
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure
from PIL import Image

from smpo.report.theme import LIGHT, THEMES, Theme, save


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
    return Plot(name, title, caption, files, width=_width_px(out / files[LIGHT.name]))


def _width_px(path: Path) -> int:
    with Image.open(path) as image:
        return image.width * 5 // 8  # 100 px of the page per inch: sharp on dense screens too


def data_uri(path: Path) -> str:
    """The file as a data URI."""
    return encoded(mimetypes.guess_type(path.name)[0] or "image/png", path.read_bytes())


def encoded(kind: str, content: bytes) -> str:
    """A data URI of media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
