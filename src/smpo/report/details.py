"""Tables of a report beyond the scores: categories, how images look, diversity, implicit accuracy."""

from collections.abc import Iterator
from dataclasses import dataclass

from smpo.evaluation.compare import Comparison
from smpo.evaluation.statistics import SIGNIFICANCE, Interval
from smpo.report.tables import Entry
from smpo.report.wording import decimals, interval_text, percent, win_interval_text


@dataclass(frozen=True)
class DetailTable:
    """A table with one named row per entry of `rows`; `head` names the first column too."""

    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]


def detail_tables(comparison: Comparison, model: str) -> Iterator[DetailTable]:
    """The tables that `comparison` has numbers for; by category for `model` alone."""
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
        "Wilson intervals; behind each category its number of prompts. Bold: significantly above 50, italic: below "
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
        "Over-optimised models tend to drift here.",
        ("model", *measures), tuple(rows),
    )


def _diversity(comparison: Comparison) -> DetailTable:
    spreads = [d.spread for d in comparison.diversity]
    digits, rows = decimals(spreads), []
    for found in comparison.diversity:
        shown = [_plain(found.spread, digits), _change(found.spread_change, digits=digits)]
        if found.within is not None:
            shown = [_plain(found.within, digits), _change(found.within_change, digits=digits), *shown]
        rows.append((found.model, tuple(shown)))
    within = ("images of a prompt", "change") if comparison.diversity[0].within is not None else ()
    return DetailTable(
        "Diversity", "Mean distance of two images, as root mean square CIE76 colour difference of their 16 x 16 "
        f"thumbnails, with 95 % bootstrap intervals, and the change against {comparison.baseline} (bold: the interval "
        "excludes zero). A model that paints ever the same image falls here.",
        ("model", *within, "images of two prompts", "change"), tuple(rows),
    )


def _implicit(comparison: Comparison) -> DetailTable:
    steps = [timestep for timestep, _ in comparison.implicit[0].by_timestep]
    rows = [
        (found.model, tuple(_share(i) for i in (found.accuracy, *(interval for _, interval in found.by_timestep))))
        for found in comparison.implicit
    ]
    return DetailTable(
        "Implicit accuracy on held-out pairs", f"Percent of {comparison.implicit[0].pairs:,} held-out pairs whose "
        "winner the model, more than its reference, denoises better than the loser; from the margin averaged over "
        "timesteps, and at each alone. Shared fixed noise, 95 % Wilson intervals over the effective number of pairs.",
        ("model", "all", *(f"t = {timestep}" for timestep in steps)), tuple(rows),
    )


def _plain(interval: Interval, digits: int) -> Entry:
    return Entry(f"{interval.value:.{digits}f}", interval_text(interval, digits))


def _change(interval: Interval | None, *, digits: int, significant: bool | None = None) -> Entry:
    """A signed change; bold where it is significant, by its interval unless said otherwise."""
    if interval is None:
        return Entry("-")
    strong = interval.excludes_zero if significant is None else significant
    return Entry(f"{interval.value:+.{digits}f}", interval_text(interval, digits), "best" if strong else "")


def _share(interval: Interval) -> Entry:
    return Entry(percent(interval.value).removesuffix(" %"), f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]")
