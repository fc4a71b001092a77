"""Figures of a comparison: win-rates, changes in common units, attribute accuracies, and images before and after."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from smpo.evaluation.attributes import AttributeChange
from smpo.evaluation.compare import Comparison, Pairing
from smpo.report.image_rows import ImageRow
from smpo.report.theme import FONT_PT, LIGHT, MARKERS, Theme, heading, new_figure, style
from smpo.report.wording import shortened
from smpo.sampling.image_set import SealedImage, read_image

DASHED = (0, (4, 3))
BAR = 0.62


def win_rate_chart(comparison: Comparison, *, theme: Theme = LIGHT) -> Figure:
    """Bars of wins, ties and losses against the baseline, one per model and scorer, with the win-rate's interval.

    The dashed line is 50 %. The whisker is the 95 % Wilson interval of the win-rate, ties counting half.
    """
    rows = _against_baseline(comparison)
    figure = new_figure(8.0, 1.0 + 0.42 * len(rows), theme)
    ax = style(figure.subplots(), theme, grid="x")
    for place, pairing in enumerate(rows):
        _win_bar(ax, place, pairing, theme)
    ax.axvline(50, color=theme.ink, linewidth=1.1, linestyle=DASHED)
    ax.set_xlim(0, 100)
    ax.xaxis.set_major_formatter("{x:.0f} %")
    _row_labels(ax, [_row_name(comparison, p) for p in rows], theme)
    kinds = (("wins", theme.win), ("ties", theme.tie), ("losses", theme.loss))
    _legend(ax, [Patch(color=colour, label=label) for label, colour in kinds], theme)
    heading(ax, f"Images that beat {comparison.baseline}, same prompt and seed", theme)
    return figure


def _win_bar(ax: Axes, place: int, pairing: Pairing, theme: Theme) -> None:
    result = pairing.win_rate
    left = 0.0
    for count, colour in ((result.wins, theme.win), (result.ties, theme.tie), (result.losses, theme.loss)):
        ax.barh(place, 100 * count / result.n, left=left, height=BAR, color=colour, linewidth=0)
        left += 100 * count / result.n
    ax.plot([100 * result.low, 100 * result.high], [place, place], color=theme.ink, linewidth=1.6)
    ax.plot([100 * result.rate], [place], marker="o", markersize=4, color=theme.ink)
    ax.annotate(
        f"{100 * result.rate:.1f} %", (100, place), xytext=(6, 0), textcoords="offset points", va="center",
        fontsize=FONT_PT, color=theme.ink, fontweight="bold", annotation_clip=False,
    )


def change_chart(comparison: Comparison, *, theme: Theme = LIGHT) -> Figure:
    """Mean change of every score against the baseline in its standard deviations, with 95 % bootstrap intervals.

    The training reward has a filled mark, other scorers have hollow marks. For an over-optimised model the filled mark
    lies right of zero, and hollow ones lie left of it.
    """
    rows = _against_baseline(comparison)
    trained = {entry.training_reward for entry in comparison.over_optimisation}
    others = [m for m in comparison.models if m != comparison.baseline]
    figure = new_figure(8.0, 1.2 + 0.4 * len(rows), theme)
    ax = style(figure.subplots(), theme, grid="x")
    ax.axvline(0, color=theme.ink, linewidth=1.1, linestyle=DASHED)
    for place, pairing in enumerate(rows):
        i = others.index(pairing.model)
        colour, shift = theme.series[i % len(theme.series)], pairing.shift
        assert shift is not None  # every pairing with the baseline has one
        ax.plot([shift.low, shift.high], [place, place], color=colour, linewidth=2)
        face = colour if pairing.scorer in trained else theme.page
        ax.plot([shift.value], [place], marker=MARKERS[i % len(MARKERS)], markersize=7, markeredgewidth=1.6,
                markeredgecolor=colour, markerfacecolor=face)
    ax.set_xlabel(f"change against {comparison.baseline}, in its standard deviations",
                  fontsize=FONT_PT - 1, color=theme.muted)
    _row_labels(ax, [_row_name(comparison, p) for p in rows], theme)
    if trained:
        marks = (("training reward", theme.muted), ("other scorers", theme.page))
        _legend(ax, [_mark(label, face, theme) for label, face in marks], theme)
    heading(ax, f"Against {comparison.baseline}", theme)
    return figure


def attribute_chart(comparison: Comparison, scorer: str, *, theme: Theme = LIGHT) -> Figure:
    """Share of images with each attribute right, one mark per model, with 95 % Wilson intervals."""
    changes = [c for c in comparison.attributes if c.scorer == scorer]
    names = list(dict.fromkeys(c.attribute for c in changes))
    models = [comparison.baseline, *(m for m in comparison.models if m != comparison.baseline)]
    figure = new_figure(8.0, 1.1 + 0.17 * len(names) * (1 + len(models)), theme)
    ax = style(figure.subplots(), theme, grid="x")
    for change in changes:
        i = models.index(change.model)
        offset = 0.24 * (i - (len(models) - 1) / 2)
        _accuracy_mark(ax, names.index(change.attribute) + offset, change, i, theme)
    counts = {c.attribute: c.n for c in changes}
    _row_labels(ax, [f"{name}  (n = {counts[name]})" for name in names], theme)
    ax.xaxis.set_major_formatter("{x:.0f} %")
    low = min(100 * c.accuracy.low for c in changes)
    ax.set_xlim(max(0.0, 10 * (low // 10)), 100.5)
    _legend(ax, [
        Line2D([], [], marker=MARKERS[i % len(MARKERS)], color=_model_colour(i, theme), markersize=6, label=model)
        for i, model in enumerate(models)
    ], theme)
    heading(ax, "Images with the attribute right", theme)
    return figure


def _accuracy_mark(ax: Axes, place: float, change: AttributeChange, i: int, theme: Theme) -> None:
    colour = _model_colour(i, theme)
    ax.plot([100 * change.accuracy.low, 100 * change.accuracy.high], [place, place], color=colour, linewidth=2)
    ax.plot([100 * change.accuracy.value], [place], marker=MARKERS[i % len(MARKERS)], markersize=6, color=colour)


def before_after_grid(
    examples: Sequence[ImageRow], names: tuple[str, str], *, scorer: str, columns: int = 2, theme: Theme = LIGHT
) -> Figure:
    """Pairs of images of the same prompt and seed, side by side, with the prompt above and both scores below.

    Args:
        examples: the pairs, in order.
        names: names of the models before and after.
        scorer: scorer whose scores are shown.
        columns: number of pairs in a row.
        theme: colours.
    """
    columns = min(columns, len(examples))
    rows = -(-len(examples) // columns)
    figure = new_figure(4.3 * columns, 2.75 * rows, theme)
    for cell, example in zip(figure.subfigures(rows, columns, squeeze=False).ravel(), examples, strict=False):
        cell.set_facecolor(theme.page)
        cell.suptitle(shortened(example.prompt, 62), fontsize=FONT_PT, color=theme.ink)
        better = example.gap(scorer, names[1], names[0]) > 0
        for ax, name, strong in zip(cell.subplots(1, 2), names, (False, better), strict=True):
            _image(ax, example.files[name])
            _score_label(ax, f"{name}  {example.scores[name][scorer]:.4g}", strong=strong, theme=theme)
    return figure


def model_grid(
    rows: Sequence[ImageRow], models: Sequence[str], *, scorer: str, theme: Theme = LIGHT
) -> Figure:
    """One row of images per prompt, one column per model, each above its score; the best of a row is bold."""
    figure = new_figure(1.75 * len(models), 2.2 * len(rows), theme)
    for place, (band, row) in enumerate(zip(figure.subfigures(len(rows), 1, squeeze=False).ravel(), rows, strict=True)):
        band.set_facecolor(theme.page)
        band.suptitle(shortened(row.prompt, 26 * len(models)), fontsize=FONT_PT - 1, color=theme.ink)
        best = max(row.scores[model][scorer] for model in models)
        for ax, model in zip(band.subplots(1, len(models), squeeze=False).ravel(), models, strict=True):
            score = row.scores[model][scorer]
            _image(ax, row.files[model])
            _score_label(ax, f"{score:.4g}", strong=score == best, theme=theme)
            if place == 0:
                ax.set_title(model, fontsize=FONT_PT, color=theme.muted)
    return figure


def _score_label(ax: Axes, text: str, *, strong: bool, theme: Theme) -> None:
    ax.set_xlabel(text, fontsize=FONT_PT - 1, color=theme.ink if strong else theme.muted,
                  fontweight="bold" if strong else "normal")


def _image(ax: Axes, data: SealedImage) -> None:
    ax.imshow(read_image(data), interpolation="antialiased")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _against_baseline(comparison: Comparison) -> list[Pairing]:
    """The pairings against the baseline, scorer by scorer."""
    others = [m for m in comparison.models if m != comparison.baseline]
    return [comparison.pairing(model, scorer) for scorer in comparison.units for model in others]


def _row_name(comparison: Comparison, pairing: Pairing) -> str:
    return pairing.scorer if len(comparison.models) == 2 else f"{pairing.scorer}  {pairing.model}"


def _row_labels(ax: Axes, labels: Sequence[str], theme: Theme) -> None:
    """Label rows 0, 1, ... from the top down."""
    ax.set_yticks(range(len(labels)), labels, fontsize=FONT_PT, color=theme.ink)
    ax.set_ylim(len(labels) - 0.4, -0.6)


def _legend(ax: Axes, handles: Sequence[Patch | Line2D], theme: Theme) -> None:
    ax.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(handles), frameon=False,
              fontsize=FONT_PT - 1, labelcolor=theme.ink, handlelength=1.1, borderaxespad=0.2)


def _mark(label: str, face: str, theme: Theme) -> Line2D:
    return Line2D([], [], linestyle="", marker="o", markersize=6, markeredgewidth=1.4, markeredgecolor=theme.muted,
                  markerfacecolor=face, label=label)


def _model_colour(place: int, theme: Theme) -> str:
    """Grey for model 0, the baseline; then the series' colours."""
    return theme.baseline if place == 0 else theme.series[(place - 1) % len(theme.series)]
