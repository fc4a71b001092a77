"""The report of a sweep: a table in the paper's layout with intervals over seeds, the work of each row, a plot."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from smpo.core.artefacts import write_atomically
from smpo.core.errors import DataError
from smpo.core.names import BASE
from smpo.evaluation.statistics import Interval, mean_interval
from smpo.report.plots import Plot, data_uri, write_plot
from smpo.report.tables import Block, Entry, Layout, Row, ranks, template_environment, write_tables
from smpo.report.wording import decimals, interval_text
from smpo.sweep.gain_figures import Curves, curves, dots
from smpo.sweep.plan import SweepFile
from smpo.sweep.rows import RunRow

Rows = Sequence[RunRow]
WORK = {  # metric of training -> head of its column
    "pairs": "pairs seen", "nfe_grad": "evaluations with gradient", "nfe_no_grad": "evaluations without",
    "implicit_accuracy": "implicit accuracy", "error_delta_w": "winners' error change",
}


def by_row(rows: Rows) -> dict[str, Rows]:
    """Row name -> its results, in the order of the sweep."""
    grouped: dict[str, list[RunRow]] = {}
    for row in rows:
        grouped.setdefault(row["row"], []).append(row)
    return dict(grouped)


def gains(rows: Rows, scorer: str) -> list[float]:
    """Mean score of the trained model minus that of the base, for each seed."""
    return [row["scores"][scorer]["mean"] - row["scores"][scorer]["base_mean"] for row in rows]


def averages(file: SweepFile, rows: Rows, statistic: str) -> dict[str, dict[str, Interval]]:
    """Scorer -> row, the base first -> mean over seeds of the statistic, in the table's scale."""
    grouped, table = by_row(rows), {}
    for scorer in rows[0]["scores"]:
        scale = 100 if scorer in file.report.times_100 else 1
        values = {BASE: [row["scores"][scorer][f"base_{statistic}"] for row in one_per_seed(rows)]} | {
            name: [row["scores"][scorer][statistic] for row in own] for name, own in grouped.items()
        }
        table[scorer] = {name: mean_interval([scale * value for value in own]) for name, own in values.items()}
    return table


def score_table(file: SweepFile, rows: Rows) -> Layout:
    """Scores and win-rates or means of every row, averaged over its seeds, with the paper's numbers below."""
    grouped, report = by_row(rows), file.report
    scores, means = averages(file, rows, report.statistic), averages(file, rows, "mean")
    entries: dict[str, list[Entry]] = {name: [] for name in (BASE, *grouped)}
    for scorer, values in scores.items():
        first, second = _ranked(values), _ranked(means[scorer])
        if report.beside == "wins":
            second = {name: _wins(grouped.get(name, []), scorer, report.wins_of, rows) for name in entries}
        for name in entries:
            entries[name] += [first[name], second[name]]
    title, pair = "Scores and win-rates", ("Score", "WR")
    if report.beside == "mean":
        title, pair = "Scores", (report.statistic.capitalize(), "Mean")
    heads = tuple((scorer, "x 100" if scorer in report.times_100 else "") for scorer in scores)
    table = tuple(Row(name, tuple(cells), *_published(file, name, tuple(scores))) for name, cells in entries.items())
    return Layout("scores", title, _caption(file), heads, pair, (Block(seeds_text(rows), table),))


def _caption(file: SweepFile) -> str:
    report = file.report
    what = f"Score: {report.statistic}" if report.beside == "wins" else f"{report.statistic.capitalize()} and mean"
    scores = (f"{what} over the prompts, averaged over seeds, with its 95 % interval over seeds (Student's t); bold: "
              "highest, underlined: second.")
    if report.beside == "mean":
        return scores
    wins = f"of {report.wins_of} over the row's model" if report.wins_of else "of the row's model over the base"
    return (f"{scores} WR: win-rate {wins} in percent, same prompts and seeds, ties half, averaged over seeds; bold "
            "where its interval lies above 50, italic where below.")


def one_per_seed(rows: Rows) -> Rows:
    """One row of every seed; all rows of a seed hold the scores of its base."""
    return list({row["seed"]: row for row in rows}.values())


def _ranked(values: Mapping[str, Interval]) -> dict[str, Entry]:
    digits, places = decimals(list(values.values())), ranks({name: i.value for name, i in values.items()})
    return {
        name: Entry(f"{interval.value:.{digits}f}",
                    interval_text(interval, digits) if interval.high > interval.low else "", places[name])
        for name, interval in values.items()
    }


def _wins(own: Rows, scorer: str, wins_of: str | None, rows: Rows) -> Entry:
    """Win-rate of row `wins_of` over the rows `own`, or of `own` over the base where `wins_of` is None."""
    if wins_of is None:
        rates = [row["scores"][scorer]["win_rate"] for row in own]
    elif own:
        rates = [row["wins_of"][scorer] for row in own if "wins_of" in row]
    else:  # the base
        rates = [row["scores"][scorer]["win_rate"] for row in rows if row["row"] == wins_of]
    if not rates:
        return Entry("-")
    rate = mean_interval([100 * value for value in rates])
    known = rate.high > rate.low
    mark = "better" if known and rate.low > 50 else "worse" if known and rate.high < 50 else ""
    return Entry(f"{rate.value:.1f}", interval_text(rate, 1) if known else "", mark)


def _published(file: SweepFile, name: str, scorers: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The paper's numbers for row `name`, and a name for their line, which includes numbers that have no column."""
    printed = file.report.paper if name == BASE else file.rows[name].paper if name in file.rows else {}
    if not printed:
        return (), ""
    second = "mean" if file.report.beside == "mean" else "WR"
    columns = [column for scorer in scorers for column in (scorer, f"{scorer} {second}")]
    rest = ", ".join(f"{key} {value}" for key, value in printed.items() if key not in columns)
    return tuple(printed.get(column, "") for column in columns), f"paper{f': {rest}' if rest else ''}"


def seeds_text(rows: Rows) -> str:
    """Number of runs, and their seeds."""
    return f"{len(rows)} runs, seeds {', '.join(str(s) for s in sorted({row['seed'] for row in rows}))}"


def training_seconds(row: RunRow) -> float:
    """Time of all steps, s, by the mean of the last ones, because a resumed run measures only its last call."""
    return row["training"]["seconds"] * row["training"]["steps"]


def work_table(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table: work and time of each row's training, averaged over its seeds."""
    kept = [key for key in WORK if any(key in row["training"] for row in rows)]
    lines = []
    for name, own in by_row(rows).items():
        means = [np.mean([row["training"][key] for row in own]) if key in own[0]["training"] else None for key in kept]
        training = np.mean([training_seconds(row) for row in own])
        lines.append([name, str(len(own)), *("" if m is None else f"{m:.4g}" for m in means), f"{training:.0f}"])
    return ["row", "seeds", *(WORK[key] for key in kept), "training s"], lines


def write_sweep_report(out: Path, file: SweepFile, rows: Rows) -> Path:
    """Write the report of a sweep to `out`; returns the path of report.html.

    The other files are report.md, tables.md, tables.tex, tables.html and figures/*.png.

    Raises:
        DataError: no run is finished.
    """
    if not rows:
        raise DataError(f"no run of sweep '{file.name}' is finished; nothing to report")
    layouts, (head, lines) = [score_table(file, rows)], work_table(rows)
    plots, title = [gains_plot(out, "gains", file, rows)], file.report.title or file.name
    view = {"title": title, "note": file.report.note, "layouts": layouts, "plots": plots, "head": head, "lines": lines}
    write_tables(out, layouts, title=title)
    environment = template_environment()
    environment.filters |= {"embedded": lambda name: data_uri(out / name)}
    for kind in ("md", "html"):
        write_atomically(out / f"report.{kind}", environment.get_template(f"sweep.{kind}.j2").render(view))
    return out / "report.html"


def gains_plot(out: Path, name: str, file: SweepFile, rows: Rows) -> Plot:
    """The gain of every row over the base, or curves of it over the report's x, written to `out`/figures."""
    scorers, grouped, x = list(rows[0]["scores"]), by_row(rows), file.report.x
    caption = (
        "Mean score minus that of the base: all seeds (small marks), their mean and, from three seeds on, its 95 % "
        "interval."
    )
    if x is None:
        points = {row: {s: gains(own, s) for s in scorers} for row, own in grouped.items()}
        return write_plot(out, name, "Gain over the base", caption, partial(dots, points))
    lines, label = curve_points(grouped.values(), scorers), x.rsplit(".", 1)[-1]
    return write_plot(out, name, f"Gain over the base by {label}", caption, partial(curves, lines, xlabel=label))


def curve_points(groups: Iterable[Rows], scorers: Sequence[str]) -> Curves:
    """Scorer -> series -> (x, gains of the seeds), in the order of x."""
    points: dict[str, dict[str, list[tuple[float, list[float]]]]] = {scorer: {} for scorer in scorers}
    for own in groups:
        if own[0]["curve"] is not None:
            series, x = own[0]["curve"]
            for scorer in scorers:
                points[scorer].setdefault(series, []).append((x, gains(own, scorer)))
    return {s: {name: sorted(curve) for name, curve in series.items()} for s, series in points.items()}
