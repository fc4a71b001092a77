"""Figures of an audit: agreement by score gap, and the share of the training signal of each tenth of the pairs."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from smpo.audit.human_labels import Agreement
from smpo.audit.training_signal import LATE_LOGIT, TrainingSignal
from smpo.report.theme import FONT_PT, LIGHT, MARKERS, Theme, heading, new_figure, style


def agreement_chart(agreements: Sequence[Agreement], *, theme: Theme = LIGHT) -> Figure:
    """Agreement with people by tenths of the score gap, one line per scorer, with 95 % intervals."""
    figure = new_figure(7.4, 3.1, theme)
    ax = style(figure.subplots(), theme)
    for i, agreement in enumerate(agreements):
        shares = [gap_bin.agreement for gap_bin in agreement.by_gap]
        places = [place + 1 + 0.08 * (i - (len(agreements) - 1) / 2) for place in range(len(shares))]
        reach = [[share.value - share.low for share in shares], [share.high - share.value for share in shares]]
        ax.errorbar(places, [share.value for share in shares], yerr=reach, color=theme.series[i % len(theme.series)],
                    linewidth=1.4, marker=MARKERS[i % len(MARKERS)], markersize=5, label=agreement.scorer)
    _label_tenths(ax, range(1, 11), from_to="from the smallest to the largest score gap", level=0.5, theme=theme)
    heading(ax, "Scorer and people prefer the same image", theme)
    return figure


def signal_chart(signal: TrainingSignal, *, theme: Theme = LIGHT) -> Figure:
    """Share of the gradient of each tenth of the pairs, at the start and later; dashed: equal shares."""
    figure = new_figure(7.4, 3.1, theme)
    ax = style(figure.subplots(), theme)
    places = range(1, len(signal.deciles) + 1)
    kinds = (("at the start", "weight_share"), (f"heaviest pair at logit {LATE_LOGIT:g}", "late_share"))
    for i, (label, key) in enumerate(kinds):
        ax.bar([place + 0.4 * (i - 0.5) for place in places], [getattr(d, key) for d in signal.deciles], width=0.38,
               color=theme.series[i], linewidth=0, label=label)
    _label_tenths(
        ax, places, from_to="from the lightest to the heaviest |2 alpha - gamma|", level=1 / len(places), theme=theme
    )
    heading(ax, "Share of the gradient", theme)
    return figure


def _label_tenths(ax: Axes, places: Sequence[int], *, from_to: str, level: float, theme: Theme) -> None:
    """Axes over tenths of the pairs with shares as percents, a dashed line at `level`, and the legend."""
    ax.axhline(level, color=theme.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_xticks(list(places))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel(f"tenth of the pairs, {from_to}", fontsize=FONT_PT - 1, color=theme.muted)
    ax.legend(fontsize=FONT_PT - 1, frameon=False, labelcolor=theme.ink)
