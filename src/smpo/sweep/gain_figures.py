"""Figures of a sweep: gains of every row, or curves over one setting, with seeds, means and 95 % intervals."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smpo.evaluation.statistics import Interval, mean_interval
from smpo.report.theme import FONT_PT, LIGHT, MARKERS, Theme, heading, new_figure, style

DASHED = (0, (4, 3))
SEEDS_FOR_INTERVAL = 3  # for two seeds it is +-13 standard errors, and would hide everything else
Curves = Mapping[str, Mapping[str, Sequence[tuple[float, Sequence[float]]]]]
"""Scorer -> series -> (x, one value per seed)."""


def plotted_interval(values: Sequence[float]) -> Interval:
    """The mean over seeds with its 95 % interval; below SEEDS_FOR_INTERVAL values the interval is the mean itself."""
    interval = mean_interval(values)
    return interval if len(values) >= SEEDS_FOR_INTERVAL else Interval(*[interval.value] * 3)


def dots(gains: Mapping[str, Mapping[str, Sequence[float]]], *, theme: Theme = LIGHT) -> Figure:
    """One line per row, one panel per scorer; `gains` is row -> scorer -> one value per seed."""
    scorers = list(next(iter(gains.values())))
    figure = new_figure(1.6 + 2.6 * len(scorers), 0.9 + 0.3 * len(gains), theme)
    axes = figure.subplots(1, len(scorers), sharey=True, squeeze=False)[0]
    for i, (ax, scorer) in enumerate(zip(axes, scorers, strict=True)):
        style(ax, theme, grid="x")
        ax.axvline(0, color=theme.ink, linewidth=1.1, linestyle=DASHED)
        colour = theme.series[i % len(theme.series)]
        for place, row in enumerate(gains.values()):
            values, mean = row[scorer], plotted_interval(row[scorer])
            ax.plot(values, [place] * len(values), linestyle="", marker="o", markersize=3, color=colour, alpha=0.45)
            ax.plot([mean.low, mean.high], [place, place], color=colour, linewidth=1.8)
            ax.plot([mean.value], [place], marker="o", markersize=6, color=colour)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_yticks(range(len(gains)), list(gains), fontsize=FONT_PT, color=theme.ink)
        ax.set_ylim(len(gains) - 0.5, -0.5)
        heading(ax, scorer, theme)
    return figure


def curves(points: Curves, *, xlabel: str, theme: Theme = LIGHT) -> Figure:
    """One panel per scorer, one curve per series."""
    figure = new_figure(1.0 + 2.9 * len(points), 3.0, theme)
    axes = figure.subplots(1, len(points), squeeze=False)[0]
    for ax, (scorer, series) in zip(axes, points.items(), strict=True):
        style(ax, theme)
        ax.axhline(0, color=theme.ink, linewidth=1.1, linestyle=DASHED)
        for i, (name, curve) in enumerate(series.items()):
            x, means = [place for place, _ in curve], [plotted_interval(values) for _, values in curve]
            for place, values in curve:
                ax.plot([place] * len(values), values, linestyle="", marker="o", markersize=3, alpha=0.45,
                        color=theme.series[i % len(theme.series)])
            ax.errorbar(
                x, [mean.value for mean in means], yerr=[mean.high - mean.value for mean in means],
                marker=MARKERS[i % len(MARKERS)], markersize=5, color=theme.series[i % len(theme.series)],
                linewidth=1.6, capsize=0, label=name,
            )
        ax.set_xlabel(xlabel, fontsize=FONT_PT - 1, color=theme.muted)
        heading(ax, scorer, theme)
    if any(len(series) > 1 for series in points.values()):
        axes[0].legend(fontsize=FONT_PT - 1, frameon=False, labelcolor=theme.ink)
    return figure
