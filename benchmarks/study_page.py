"""The tables and plots of docs/results.md from the committed rows of the tiny sweeps.

    python benchmarks/study_page.py [--collect runs/tiny-study]

Rewrites what stands between `<!-- NAME -->` and `<!-- end -->` in docs/results.md, and the figures beside it. With
--collect, the rows that `smpo sweep` wrote there are copied to benchmarks/results/study first.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo.evaluation.statistics import mean_interval
from smpo.sweep.plan import load_sweep
from smpo.sweep.report import by_row, gains, gains_plot, training_seconds

ROOT = Path(__file__).parent.parent
PAGE, ROWS = ROOT / "docs" / "results.md", ROOT / "benchmarks" / "results" / "study"
BLOCK = re.compile(r"(<!-- (?P<name>tiny-[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
SCORERS = ("verifier", "reward", "clip")
Row = Mapping[str, Any]
RENAMED = {"evaluations_trained": "nfe_grad", "evaluations_free": "nfe_no_grad"}
"""Names in rows that were committed before 0.2 -> today's."""


def cell(values: Sequence[float], *, scale: float = 100, sign: bool = False) -> str:
    """Mean and 95 % interval over seeds, such as "+6.3 [4.1, 8.5]"."""
    interval = mean_interval([scale * value for value in values])
    mean = f"{interval.value:{'+' if sign else ''}.1f}"
    return mean if interval.low == interval.high else f"{mean} [{interval.low:.1f}, {interval.high:.1f}]"


def differences(own: Sequence[Row], ours: Mapping[int, Row], scorer: str) -> list[float]:
    """Score of these rows less that of our row of the same seed."""
    return [
        row["scores"][scorer]["mean"] - ours[row["seed"]]["scores"][scorer]["mean"]
        for row in own if row["seed"] in ours
    ]


def table(rows: Sequence[Row], ours: str) -> str:
    """One line a row: gains over the base, difference to our row, win-rate, work."""
    reference = {row["seed"]: row for row in rows if row["row"] == ours}
    heads = [f"{s} gain" for s in SCORERS] + [f"verifier - {ours}"] * bool(reference)
    heads += ["reward wins %", "implicit acc.", "UNet evaluations", "s"]
    lines = ["| row (seeds) | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for name, own in by_row(rows).items():
        cells = [cell(gains(own, scorer), sign=True) for scorer in SCORERS]
        if reference:
            cells.append("" if name == ours else cell(differences(own, reference, "verifier"), sign=True))
        training = [row["training"] for row in own]
        accuracy = [t["implicit_accuracy"] for t in training if "implicit_accuracy" in t]
        cells += [
            cell([row["scores"]["reward"]["win_rate"] for row in own]),
            f"{sum(accuracy) / len(accuracy):.2f}" if accuracy else "",
            evaluations(training[0]), f"{sum(map(training_seconds, own)) / len(own):.0f}",
        ]
        lines.append(f"| {name} ({len(own)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def evaluations(training: Mapping[str, float]) -> str:
    """Thousands of images through a UNet in the whole run, a trained one counting three (backward is two more)."""
    if "nfe_grad" not in training:
        return ""
    each = 3 * training["nfe_grad"] + training["nfe_no_grad"]
    return f"{training['pairs'] * each / 1000:.1f}k"


def figure(name: str, rows: Sequence[Row]) -> str:
    """The sweep's plot, written beside the page; the Markdown that shows it."""
    plot = gains_plot(PAGE.parent / "images", name, load_sweep(name).file, rows)
    light, dark = (f"images/{plot.files[theme]}" for theme in ("light", "dark"))
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{plot.title}, {name}" width="{plot.width}"></picture>'
    )


def rows_of(name: str) -> list[Row]:
    """The committed rows of one sweep."""
    text = (ROWS / f"{name}.jsonl").read_text()
    for old, now in RENAMED.items():
        text = text.replace(f'"{old}":', f'"{now}":')
    return [json.loads(line) for line in text.splitlines()]


def ours_of(name: str) -> str:
    """The row that the others are compared with."""
    return load_sweep(name).file.report.wins_of or "smpo"


def block(name: str) -> str:
    """The table and the plot of one sweep."""
    rows = rows_of(name)
    return f"{table(rows, ours_of(name))}\n\n{figure(name, rows)}\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collect", type=Path, help="folder of the sweeps whose rows are to be copied first")
    args = parser.parse_args()
    for path in sorted(args.collect.glob("tiny-*.jsonl")) if args.collect else ():
        (ROWS / path.name).write_bytes(path.read_bytes())
    PAGE.write_text(BLOCK.sub(lambda match: match[1] + block(match["name"]) + match[3], PAGE.read_text()))


if __name__ == "__main__":
    main()
