"""Figures of a training run: its curves, and the smoothed labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import ArrayLike

from smpo.core.metrics_file import read_metrics
from smpo.report.theme import FONT_PT, LIGHT, Theme, heading, new_figure, style

PANELS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("Loss", ("loss",)),
    ("Implicit accuracy", ("implicit_accuracy",)),
    ("Preference logit", ("logit_mean",)),
    ("Error against reference", ("error_delta_w", "error_delta_l")),
    ("Gradient norm", ("grad_norm",)),
    ("Learning rate", ("lr",)),
    ("Pairs per second", ("examples_per_s",)),
)
REFERENCE_LINES: Mapping[str, float] = {"implicit_accuracy": 0.5, "logit_mean": 0.0, "error_delta_w": 0.0}
NAMES: Mapping[str, str] = {"error_delta_w": "winners", "error_delta_l": "losers"}
SMOOTHED_FROM = 40  # points; shorter curves are not smoothed
QUANTILES = (0.05, 0.5, 0.95)


def training_curves(metrics: Path, *, theme: Theme = LIGHT) -> Figure:
    """Panels of the metrics of a training run over its steps; a panel without numbers is left out.

    Faint lines are the logged values, strong lines their centred running mean. The band of the logit is +-1 standard
    deviation over the pairs of a step.
    """
    columns = read_metrics(metrics)
    panels = [(title, keys) for title, keys in PANELS if all(k in columns for k in keys)]
    width = 4 if len(panels) > 3 else max(1, len(panels))
    rows = max(1, -(-len(panels) // width))
    figure = new_figure(2.45 * width, 1.95 * rows, theme)
    axes = figure.subplots(rows, width, squeeze=False).ravel()
    for ax, (title, keys) in zip(axes, panels, strict=False):
        style(ax, theme)
        heading(ax, title, theme)
        for i, key in enumerate(keys):
            _curve(ax, columns, key, theme=theme, colour=theme.series[i])
        if len(keys) > 1:
            ax.legend(fontsize=FONT_PT - 2, frameon=False, labelcolor=theme.ink, handlelength=1.2)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
    for ax in axes[len(panels):]:
        ax.set_visible(False)
    figure.supxlabel("optimizer step", fontsize=FONT_PT - 1, color=theme.muted)
    return figure


def _curve(ax: Axes, columns: Mapping[str, np.ndarray], key: str, *, theme: Theme, colour: str) -> None:
    steps, values = columns["step"], columns[key]
    if key in REFERENCE_LINES:
        ax.axhline(REFERENCE_LINES[key], color=theme.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    if key == "logit_mean" and "logit_std" in columns:
        deviation, middle = running_mean(columns["logit_std"]), running_mean(values)
        ax.fill_between(steps, middle - deviation, middle + deviation, color=colour, alpha=0.15, linewidth=0)
    smooth = len(values) >= SMOOTHED_FROM and key != "lr"
    if smooth:
        ax.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7)
    line = running_mean(values) if smooth else values
    ax.plot(steps, line, color=colour, linewidth=1.6, label=NAMES.get(key, key))


def running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a twentieth of the points, same shape; it skips NaN, and its window shrinks at both ends."""
    if len(values) < SMOOTHED_FROM:
        return values
    window = np.ones(max(3, len(values) // 20 | 1))
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), window, mode="same")
    count = np.convolve(known.astype(np.float64), window, mode="same")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def label_distribution(p_winner: ArrayLike, weight: ArrayLike, *, theme: Theme = LIGHT) -> Figure:
    """Histograms of the smoothed probability of the winner and of the loss weight, with their 5, 50 and 95 % quantiles.

    Args:
        p_winner: alpha / gamma of each pair, in [0, 1], shape (pairs,).
        weight: factor of each pair's margin, 2 alpha - gamma, shape (pairs,).
        theme: colours.
    """
    figure = new_figure(8.6, 2.6, theme)
    left, right = figure.subplots(1, 2)
    _histogram(left, np.asarray(p_winner, dtype=np.float64), title="Smoothed label of the winner", theme=theme)
    _histogram(right, np.asarray(weight, dtype=np.float64), title="Weight of the pair in the loss", theme=theme)
    left.set_xlabel("p(winner) = alpha / gamma", fontsize=FONT_PT - 1, color=theme.muted)
    right.set_xlabel("2 alpha - gamma", fontsize=FONT_PT - 1, color=theme.muted)
    left.set_ylabel("pairs", fontsize=FONT_PT - 1, color=theme.muted)
    return figure


def _histogram(ax: Axes, values: np.ndarray, *, title: str, theme: Theme) -> None:
    style(ax, theme)
    heading(ax, f"{title}, {len(values):,} pairs", theme)
    ax.hist(values, bins=40, color=theme.series[0], alpha=0.85, linewidth=0)
    ax.set_ylim(top=ax.get_ylim()[1] * 1.5)  # room for the labels of the quantiles
    for share, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True):
        ax.axvline(value, color=theme.ink, linewidth=1.0, linestyle=(0, (3, 2)))
        ax.annotate(
            f"{share:.0%}: {value:.3g}", (value, 0.985), xycoords=("data", "axes fraction"), xytext=(3, 0),
            textcoords="offset points", va="top", fontsize=FONT_PT - 2, color=theme.ink, rotation=90,
        )
