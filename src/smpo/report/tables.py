"""Tables in the paper's layout: medians with win-rates (its Table 2), medians with means (its Tables 8 and 9).

A `Layout` holds the finished texts. One template for each format writes it as Markdown, LaTeX (booktabs) or HTML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from smpo.core.artefacts import write_atomically
from smpo.core.checks import check_known
from smpo.core.errors import DataError
from smpo.evaluation.compare import Comparison
from smpo.evaluation.statistics import Interval, holm_adjusted, verdict_of
from smpo.report.published import PublishedNumbers
from smpo.report.wording import decimals, interval_text, percent, shortened, win_interval_text

LATEX_MARKS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{mark: "\\" + mark for mark in "&%$#_"},
}


@dataclass(frozen=True)
class Entry:
    """One number as text, with its interval below it; `mark` is "best", "second", "better", "worse" or empty."""

    text: str = ""
    interval: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A model's entries, two per scorer; `published` is the paper's row, shown below; empty where there is none."""

    name: str
    entries: tuple[Entry, ...]
    published: tuple[str, ...] = ()
    published_name: str = ""


@dataclass(frozen=True)
class Block:
    """The rows of one prompt set."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Layout:
    """A table with two columns per scorer.

    Attributes:
        name: label of the table in LaTeX, without spaces.
        title: short title.
        caption: explanation of the numbers and tests.
        scorers: (name, unit) above each pair of columns.
        pair: names of the two columns.
        blocks: one block per prompt set.
    """

    name: str
    title: str
    caption: str
    scorers: tuple[tuple[str, str], ...]
    pair: tuple[str, str]
    blocks: tuple[Block, ...]


def paper_tables(
    comparisons: Mapping[str, Comparison], model: str, *, published: Mapping[str, PublishedNumbers] | None = None
) -> tuple[Layout, Layout]:
    """The tables in the layouts of the paper's Table 2, and of its Tables 8 and 9.

    Args:
        comparisons: name of the prompt set -> comparison; all under the same scorers.
        model: the set whose win-rate over every other one is shown.
        published: name of the prompt set -> numbers of the paper to show.

    Raises:
        ConfigError: `model` is no set of a comparison, or `published` names something unknown.
        DataError: the comparisons have different scorers.
    """
    published = published or {}
    first = next(iter(comparisons.values()))
    for name, comparison in comparisons.items():
        check_known(model, comparison.models, what=f"set on '{name}'")
        if tuple(comparison.units) != tuple(first.units):
            known, got = ", ".join(first.units), ", ".join(comparison.units)
            raise DataError(f"'{name}' was scored by {got}, others by {known}; evaluate all with the same scorers")
        if name in published:
            published[name].check(comparison.models, tuple(comparison.units))
    parts = [(name, comparison, published.get(name)) for name, comparison in comparisons.items()]
    return _scores_and_win_rates(parts, model), _medians_and_means(parts)


Parts = Sequence[tuple[str, Comparison, PublishedNumbers | None]]
Entries = Mapping[tuple[str, str], Entry]
"""(model, scorer) -> entry."""


def _scores_and_win_rates(parts: Parts, model: str) -> Layout:
    wins, blocks = _wins(parts, model), []
    for name, comparison, published in parts:
        scores = _entries(comparison, "median", published)
        rates = {key: wins.get((name, *key), Entry("-")) for key in scores}
        blocks.append(_block(name, comparison, published, {"median": scores, "win_rate": rates}))
    return Layout(
        "scores", f"Scores, and win-rates of {model}",
        "Score: median over the prompts with its 95 % bootstrap interval; bold: highest, underlined: second. WR: "
        f"percent of images on which {model} beats the row's model, same prompt and seed, ties counting half, with its "
        "95 % Wilson interval; bold: significantly above 50, italic: significantly below (exact sign test over "
        "prompts, Holm-adjusted over the whole table).",
        _heads(parts), ("Score", "WR"), tuple(blocks),
    )


def _wins(parts: Parts, model: str) -> dict[tuple[str, str, str], Entry]:
    """(prompt set, other model, scorer) -> win-rate of `model` over the other one, marked where it is significant."""
    pairings = [
        (name, comparison.pairing(model, scorer, other)) for name, comparison, _ in parts
        for other in comparison.models if other != model for scorer in comparison.units
    ]
    adjusted = holm_adjusted([p.win_rate.p_value for _, p in pairings])
    return {
        (name, p.other, p.scorer): Entry(
            f"{100 * p.win_rate.rate:.1f}", win_interval_text(p.win_rate),
            verdict_of(p.win_rate, p_holm).replace("undecided", ""),
        )
        for (name, p), p_holm in zip(pairings, adjusted, strict=True)
    }


def _medians_and_means(parts: Parts) -> Layout:
    blocks = []
    for name, comparison, published in parts:
        both = {statistic: _entries(comparison, statistic, published) for statistic in ("median", "mean")}
        blocks.append(_block(name, comparison, published, both))
    return Layout(
        "median-mean", "Medians and means",
        "Median and mean over the prompts with 95 % bootstrap intervals (prompts resampled); bold: highest, "
        "underlined: second.",
        _heads(parts), ("Median", "Mean"), tuple(blocks),
    )


def _block(
    name: str, comparison: Comparison, published: PublishedNumbers | None, columns: Mapping[str, Entries]
) -> Block:
    """The rows of one prompt set; `columns` maps the paper's name of each statistic to its entries."""
    rows = []
    for model in comparison.models:
        cells = [(scorer, statistic) for scorer in comparison.units for statistic in columns]
        row = Row(model, tuple(columns[statistic][model, scorer] for scorer, statistic in cells))
        paper = tuple(published.text(model, *cell) for cell in cells) if published else ()
        if published and any(paper):
            source = f"paper, {published.models[model]} on {published.prompts}"
            row = replace(row, published=paper, published_name=source)
        rows.append(row)
    images = f" x {comparison.images_per_prompt} images" if comparison.images_per_prompt > 1 else ""
    if comparison.protocol == "median-image":
        images += ", of which the median one counts"
    return Block(f"{name} ({comparison.num_prompts:,} prompts{images})", tuple(rows))


def _entries(comparison: Comparison, statistic: str, published: PublishedNumbers | None) -> Entries:
    """The statistic of every model and scorer; in the paper's scale for a scorer that the paper uses."""
    entries = {}
    for scorer in comparison.units:
        scale = published.scale(scorer) if published else 1
        values = {model: _scaled(getattr(comparison.summaries[model][scorer], statistic), scale)
                  for model in comparison.models}
        digits, ranked = decimals(list(values.values())), ranks({m: i.value for m, i in values.items()})
        for model, interval in values.items():
            text = f"{interval.value:.{digits}f}"
            entries[model, scorer] = Entry(text, interval_text(interval, digits), ranked[model])
    return entries


def ranks(values: Mapping[str, float]) -> dict[str, str]:
    """"best", "second" or "" of each model; no best where all values are equal, no second of only two values."""
    places = sorted(set(values.values()), reverse=True)
    names = {places[0]: "best"} if len(places) > 1 else {}
    if len(places) > 2:
        names[places[1]] = "second"
    return {model: names.get(value, "") for model, value in values.items()}


def _scaled(interval: Interval, scale: int) -> Interval:
    return Interval(scale * interval.value, scale * interval.low, scale * interval.high)


def _heads(parts: Parts) -> tuple[tuple[str, str], ...]:
    """Name and unit above each scorer's columns; the unit includes the paper's scale."""
    _, comparison, published = parts[0]
    scales = {scorer: published.scale(scorer) if published else 1 for scorer in comparison.units}
    return tuple((s, f"{unit} x {scales[s]}" if scales[s] != 1 else unit) for s, unit in comparison.units.items())


def latex_escaped(text: str) -> str:
    """`text` with LaTeX's special characters escaped."""
    return "".join(LATEX_MARKS.get(mark, mark) for mark in text)


def markdown_escaped(text: str, length: int = 90) -> str:
    """`text` for a cell of a Markdown table: short, on one line, its bars and markup escaped."""
    cell = shortened(" ".join(text.split()), length)
    for mark in "\\|*_`<>[]":
        cell = cell.replace(mark, "\\" + mark)
    return cell


def template_environment(*, latex: bool = False) -> Environment:
    """Jinja over the package's templates. Text is escaped in .html files; LaTeX templates use other brackets."""
    environment = Environment(
        loader=PackageLoader("smpo.report"), autoescape=lambda name: ".html" in (name or ""),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    if latex:  # where braces and percent signs have a meaning of their own
        environment = environment.overlay(
            variable_start_string="<<", variable_end_string=">>", block_start_string="<%", block_end_string="%>",
            comment_start_string="<#", comment_end_string="#>",
        )
    environment.filters |= {"tex": latex_escaped, "cell": markdown_escaped, "percent": percent}
    return environment


def write_tables(out: Path, layouts: Sequence[Layout], *, title: str) -> list[Path]:
    """Write tables.md, tables.tex and tables.html to `out`; returns their paths."""
    view: dict[str, Any] = {"layouts": layouts, "title": title}
    paths = [out / f"tables.{kind}" for kind in ("md", "tex", "html")]
    for path in paths:
        kind = path.suffix[1:]
        environment = template_environment(latex=kind == "tex")
        write_atomically(path, environment.get_template(f"tables.{kind}.j2").render(view))
    return paths
