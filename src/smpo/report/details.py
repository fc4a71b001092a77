"""Further tables of a report: categories, how images look, diversity, implicit accuracy."""

from collections.abc import Iterator
from dataclasses import dataclass

from smpo.evaluation.compare import Comparison
from smpo.evaluation.statistics import SIGNIFICANCE, Interval
from smpo.report.tables import Entry
from smpo.report.wording import decimals, interval_text, percent, win_interval_text


@dataclass(frozen=True)
class DetailTable:
    """A table: `head` names all columns; `rows` holds (name, entries)."""

    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]


def detail_tables(comparison: Comparison, model: str) -> Iterator[DetailTable]:
    """The tables that `comparison` has numbers for; the table of categories is about `model` only."""
    if comparison.categories:
        yield _categories(comparison, model)
    if comparison.drifts:
        yield _drifts(comparison)
    if comparison.diversity:
        yield _diversity(comparison)
    if comparison.implicit:
        yield _implicit(comparison)


def _categories(comparison: Comparison, model: str) -> DetailTable:
    own = {(r.category, r.scorer): r for r in comparison.categories if r.model == model}
    names = dict.fromkeys(category for category, _ in own)
    rows = []
    for name in names:
        results = [own[name, scorer] for scorer in comparison.units]
        entries = (
            Entry(f"{100 * r.win_rate.rate:.1f}", win_interval_text(r.win_rate), r.verdict.replace("undecided", ""))
            for r in results
        )
        rows.append((f"{name} ({results[0].prompts:,})", tuple(entries)))
    return DetailTable(
        "By category", f"Percent of images by which {model} beats {comparison.baseline}, ties counting half, with 95 % "
        "Wilson intervals. In brackets: number of prompts. Bold: significantly above 50; italic: significantly below "
        "(exact sign test, Holm-adjusted over all categories, sets and scorers).",
        ("category", *comparison.units), tuple(rows),
    )


def _drifts(comparison: Comparison) -> DetailTable:
    measures = tuple(dict.fromkeys(d.measure for d in comparison.drifts))
    rows = []
    for model in dict.fromkeys(d.model for d in comparison.drifts):
        own = {d.measure: d for d in comparison.drifts if d.model == model}
        rows.append((model, tuple(
            _change(own[m].shift, significant=own[m].p_holm < SIGNIFICANCE, digits=2) for m in measures
        )))
    return DetailTable(
        "How the images look", f"Mean change against {comparison.baseline} in its standard deviations, with 95 % "
        "bootstrap intervals; bold: significant (Wilcoxon, Holm-adjusted). Brightness is the mean of L*, contrast its "
        "standard deviation, saturation the mean chroma, sharpness the standard deviation of the Laplacian of L*. "
        "Large changes are a sign of over-optimisation.",
        ("model", *measures), tuple(rows),
    )


def _diversity(comparison: Comparison) -> DetailTable:
    spreads = [d.spread for d in comparison.diversity]
    digits, rows = decimals(spreads), []
    for result in comparison.diversity:
        entries = [_plain(result.spread, digits), _change(result.spread_change, digits=digits)]
        if result.within is not None:
            entries = [_plain(result.within, digits), _change(result.within_change, digits=digits), *entries]
        rows.append((result.model, tuple(entries)))
    within = ("images of a prompt", "change") if comparison.diversity[0].within is not None else ()
    return DetailTable(
        "Diversity", "Mean distance of two images, as root mean square CIE76 colour difference of their 16 x 16 "
        f"thumbnails, with 95 % bootstrap intervals, and the change against {comparison.baseline} (bold: the interval "
        "excludes zero). It is low for a model whose images are all alike.",
        ("model", *within, "images of two prompts", "change"), tuple(rows),
    )


def _implicit(comparison: Comparison) -> DetailTable:
    steps = [timestep for timestep, _ in comparison.implicit[0].by_timestep]
    rows = [
        (result.model, tuple(_share(i) for i in (result.accuracy, *(share for _, share in result.by_timestep))))
        for result in comparison.implicit
    ]
    return DetailTable(
        "Implicit accuracy on held-out pairs", f"Percent of {comparison.implicit[0].pairs:,} held-out pairs on which "
        "the denoising loss of the model improved more on the winner than on the loser, compared with its reference: "
        "from the margin averaged over timesteps, and at single timesteps. All models use the same noise. With 95 % "
        "Wilson intervals over the effective number of pairs.",
        ("model", "all", *(f"t = {timestep}" for timestep in steps)), tuple(rows),
    )


def _plain(interval: Interval, digits: int) -> Entry:
    return Entry(f"{interval.value:.{digits}f}", interval_text(interval, digits))


def _change(interval: Interval | None, *, digits: int, significant: bool | None = None) -> Entry:
    """A signed change; bold where it is significant, by default where its interval excludes zero."""
    if interval is None:
        return Entry("-")
    strong = interval.excludes_zero if significant is None else significant
    return Entry(f"{interval.value:+.{digits}f}", interval_text(interval, digits), "best" if strong else "")


def _share(interval: Interval) -> Entry:
    return Entry(percent(interval.value).removesuffix(" %"), f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]")
