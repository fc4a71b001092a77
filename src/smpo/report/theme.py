"""The style of all figures: a light and a dark theme, and plain axes."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smpo.core.artefacts import write_atomically

DPI = 160
FONT_PT = 9


@dataclass(frozen=True)
class Theme:
    """Colours of one theme. Blue and orange differ in lightness, and for every common kind of colour vision.

    Attributes:
        name: "light" or "dark".
        page: background.
        ink: text.
        muted: secondary text and reference lines.
        line: grid and spines.
        baseline: the baseline model.
        series: the other models, in order; the first one belongs to the report's model.
        win: share of wins.
        tie: share of ties.
        loss: share of losses.
    """

    name: str
    page: str
    ink: str
    muted: str
    line: str
    baseline: str
    series: tuple[str, ...]
    win: str
    tie: str
    loss: str


LIGHT = Theme(
    "light", page="#ffffff", ink="#1c2430", muted="#5f6b7a", line="#dfe4ea", baseline="#8b95a3",
    series=("#2166ac", "#c2620c", "#1b7f6b", "#7a4fa3"), win="#2f74b8", tie="#d5dbe2", loss="#e39a4d",
)
DARK = Theme(
    "dark", page="#161b22", ink="#e4e9f0", muted="#97a3b3", line="#2d3642", baseline="#7d8897",
    series=("#6cb0f2", "#f0a35e", "#5cc4ae", "#b895de"), win="#5aa2e6", tie="#3a4554", loss="#d98a3d",
)
THEMES = (LIGHT, DARK)
MARKERS = ("o", "D", "s", "^")  # so that models differ not only by colour


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """An empty figure of `width` x `height` inches in the theme's background."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor=theme.page, layout="constrained")


def style(ax: Axes, theme: Theme, *, grid: Literal["x", "y"] = "y") -> Axes:
    """`ax` with a light grid along `grid`, no frame, and the theme's colours."""
    ax.set_facecolor(theme.page)
    for side in ("top", "right", "left" if grid == "y" else "bottom"):
        ax.spines[side].set_visible(False)
    for spine in ax.spines.values():
        spine.set_color(theme.line)
    ax.tick_params(colors=theme.muted, labelsize=FONT_PT - 1, length=0)
    ax.grid(True, axis=grid, color=theme.line, linewidth=0.7)
    ax.set_axisbelow(True)
    return ax


def heading(ax: Axes, text: str, theme: Theme) -> None:
    """Put a left-aligned title above `ax`."""
    ax.set_title(text, loc="left", fontsize=FONT_PT, fontweight="bold", color=theme.ink, pad=7)


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG without software versions, so that equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
