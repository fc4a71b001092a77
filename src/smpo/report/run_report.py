"""The report of a run: report.html, one file that works offline and on a phone, and report.md for a repository.

Equal content gives equal bytes: dates or facts of the machine appear only where the content has them.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from smpo.core.artefacts import write_atomically
from smpo.core.checks import check_known
from smpo.core.errors import DataError
from smpo.evaluation.compare import Comparison
from smpo.report.browser import write_browser
from smpo.report.comparison_figures import attribute_chart, before_after_grid, change_chart, model_grid, win_rate_chart
from smpo.report.details import detail_tables
from smpo.report.image_rows import Evaluated, ImageRow, image_rows
from smpo.report.plots import Plot, data_uri, encoded, write_plot
from smpo.report.tables import Layout, paper_tables, template_environment, write_tables
from smpo.report.theme import save
from smpo.report.training_figures import label_distribution, training_curves
from smpo.report.wording import decimals, headline, percent
from smpo.sampling.image_set import SealedImage, read_image

SMALL_PX = 160  # images up to this side are embedded as they are
THUMBNAIL_PX = 320
HERO_EXAMPLES = 8
GRID_ROWS = 5
GRID = "figures/models.png"
BROWSER = "prompts.html"
EXTREMES = 5  # largest gains and losses listed in report.md


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything that a report shows.

    Attributes:
        title: title of the page.
        comparison: comparison of the evaluated sets.
        model: name of the set that the report is about.
        facts: section -> name -> value; sections are, for instance, Method, Time, Memory, Versions.
        examples: images of `model` beside those of the baseline.
        metrics: metrics.jsonl of the training run.
        p_winner: smoothed label of each training pair.
        weight: loss weight of each training pair.
        recipe: resolved recipe as YAML text.
        note: a line below the title, for instance the date.
        tables: tables in the paper's layout, see `tables.paper_tables`; by default those of `comparison`.
        categories: category of each image, for the page over all prompts.
        sets: images and scores of every set, for the page over all prompts and the grid of all models.
    """

    title: str
    comparison: Comparison
    model: str
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    examples: Sequence[ImageRow] = ()
    metrics: Path | None = None
    p_winner: Sequence[float] = ()
    weight: Sequence[float] = ()
    recipe: str = ""
    note: str = ""
    tables: Sequence[Layout] = ()
    categories: Sequence[str] = ()
    sets: Evaluated = field(default_factory=dict)

    @property
    def scorer(self) -> str:
        """The scorer whose scores stand below the examples: the training reward, or else the first."""
        known = self.comparison.over_optimisation
        return known[0].training_reward if known else next(iter(self.comparison.units))


def write_report(out: Path, *, content: ReportContent) -> Path:
    """Write a report to `out`; returns the path of report.html.

    The other files are report.md, figures/*.png, tables.md, tables.tex, tables.html, comparison.json and, where the
    content has the sets, prompts.html.

    Raises:
        ConfigError: the model is not among those compared.
        DataError: the model is the baseline, or an image or the metrics cannot be read.
    """
    comparison = content.comparison
    check_known(content.model, comparison.models, what="model")
    if content.model == comparison.baseline:
        raise DataError(f"the report's model '{content.model}' is the baseline itself; name another set")
    view = _view(content, _plots(content, out))
    environment = template_environment()
    environment.filters |= {"embedded": lambda file: data_uri(out / file), "thumbnail": _thumbnail}
    if content.sets:
        write_browser(
            out / BROWSER, content.sets, baseline=comparison.baseline, model=content.model,
            categories=content.categories,
        )
    write_tables(out, _tables(content), title=content.title)
    write_atomically(out / "comparison.json", comparison.to_json())
    write_atomically(out / "report.md", environment.get_template("report.md.j2").render(view))
    write_atomically(out / "report.html", environment.get_template("report.html.j2").render(view))
    return out / "report.html"


def _view(content: ReportContent, plots: Sequence[Plot]) -> dict[str, Any]:
    """The variables of the templates: texts and numbers, ready to print."""
    comparison, model, baseline = content.comparison, content.model, content.comparison.baseline
    lead, *findings = headline(comparison, model)
    return {
        "content": content, "comparison": comparison, "model": model, "baseline": baseline, "lead": lead,
        "findings": findings, "layouts": _tables(content), "tiles": list(_tiles(content)),
        "details": list(detail_tables(comparison, model)), "grid": GRID if _has_grid(content) else "",
        "browser": BROWSER if content.sets else "", "plots": plots, "hero": content.examples[:HERO_EXAMPLES],
        "by_gap": sorted(content.examples, key=lambda row: -row.gap(content.scorer, model, baseline)),
        "extremes": EXTREMES,
        "digits": {
            s: decimals([comparison.summaries[m][s].median for m in comparison.models]) for s in comparison.units
        },
    }


def _tables(content: ReportContent) -> Sequence[Layout]:
    return content.tables or paper_tables({"prompts": content.comparison}, content.model)


def _tiles(content: ReportContent) -> Iterator[dict[str, Any]]:
    """One tile per scorer, with the win-rate."""
    for scorer in content.comparison.units:
        pairing = content.comparison.pairing(content.model, scorer)
        won = pairing.win_rate
        yield {
            "scorer": scorer, "rate": percent(won.rate), "verdict": pairing.verdict,
            "interval": f"{100 * won.low:.1f} to {100 * won.high:.1f} %", "ties": won.ties,
            "wins_width": f"{100 * won.share_won:.2f}", "ties_width": f"{100 * won.ties / won.n:.2f}",
        }


def _plots(content: ReportContent, out: Path) -> list[Plot]:
    """Write every figure that the content has numbers for."""
    comparison, model, baseline = content.comparison, content.model, content.comparison.baseline
    plots = [
        write_plot(
            out, "win-rates", "Win-rates", "Share of images that win, tie and lose against the baseline. The thin "
            "line is the 95 % Wilson interval of the win-rate, ties counting half. The dashed line is at 50 %.",
            partial(win_rate_chart, comparison),
        ),
        write_plot(
            out, "changes", "Change of every score", "Mean change in standard deviations of the baseline, with 95 % "
            "bootstrap intervals. Over-optimisation: the training reward lies right of zero, other scorers left.",
            partial(change_chart, comparison),
        ),
    ]
    for scorer in dict.fromkeys(c.scorer for c in comparison.attributes):
        plots.append(write_plot(
            out, f"attributes-{scorer}", f"Attributes by {scorer}", "Share of images with each attribute right, "
            "with 95 % Wilson intervals.", partial(attribute_chart, comparison, scorer),
        ))
    if content.metrics is not None:
        plots.append(write_plot(
            out, "training", "Training", "Logged values (faint) and their running mean. Implicit accuracy: share of "
            "pairs on which the model prefers the winner more than the reference does.",
            partial(training_curves, content.metrics),
        ))
    if len(content.p_winner):
        plots.append(write_plot(
            out, "labels", "Smoothed labels", "Probability that the winner is better, by the reward model, and the "
            "weight that it gives to each pair. Dashed: 5, 50 and 95 % quantiles.",
            partial(label_distribution, content.p_winner, content.weight),
        ))
    if content.examples:
        hero = content.examples[:HERO_EXAMPLES]
        figure = before_after_grid(hero, (baseline, model), scorer=content.scorer)
        save(figure, out / "figures" / "before-after.png")
    if _has_grid(content):
        rows = image_rows(content.sets, limit=GRID_ROWS)
        save(model_grid(rows, comparison.models, scorer=content.scorer), out / GRID)
    return plots


def _has_grid(content: ReportContent) -> bool:
    """Whether there are more than two models; two are side by side in "Before and after"."""
    return len(content.sets) > 2


def _thumbnail(data: SealedImage) -> str:
    """A data URI of an image: a small image as it is, else a JPEG of at most THUMBNAIL_PX a side."""
    image, buffer = read_image(data), io.BytesIO()
    if max(image.size) <= SMALL_PX:
        image.save(buffer, "PNG", optimize=True)
        return encoded("image/png", buffer.getvalue())
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=88)
    return encoded("image/jpeg", buffer.getvalue())
