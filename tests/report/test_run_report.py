"""The report and its figures: self-contained, deterministic, and true to the numbers."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smpo.core.errors import ConfigError, DataError
from smpo.core.seals import Seal
from smpo.evaluation.compare import Comparison, compare
from smpo.evaluation.image_sets import categories_of, compare_image_sets
from smpo.evaluation.implicit_accuracy import implicit_accuracy
from smpo.evaluation.scores import ImageScores
from smpo.evaluation.statistics import Interval
from smpo.report.before_after import BeforeAfter, before_after, grid_rows
from smpo.report.comparison_figures import attribute_chart, before_after_grid, change_chart, model_grid, win_rate_chart
from smpo.report.run_report import ReportContent, write_report
from smpo.report.tables import paper_tables
from smpo.report.theme import DARK, LIGHT, save
from smpo.report.training_figures import label_distribution, read_metrics, running_mean, training_curves
from smpo.report.wording import decimals, interval_text, joined, shortened
from smpo.sampling.image_set import ImageSet, SealedImage
from tests.image_sets import Brightness

VOID = {"meta", "img", "source", "br"}


@pytest.fixture(scope="module", autouse=True)
def coarse_figures():
    """A quarter of the pixels: drawing is most of this file's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smpo.report.theme.DPI", 80)
        yield


@pytest.fixture(scope="module")
def comparison(evaluations: dict[str, Path]) -> Comparison:
    return compare(evaluations, "base", training_reward="brightness")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    rows = ({"step": i, "loss": 0.7 - 0.001 * i, "implicit_accuracy": 0.5 + 0.002 * i, "logit_mean": 0.01 * i,
             "logit_std": 0.5, "error_delta_w": -1e-4 * i, "error_delta_l": 1e-4 * i, "grad_norm": 0.3, "lr": 1e-5,
             "pairs_per_s": 40.0} for i in range(1, 61))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def content(
    comparison: Comparison, metrics: Path, sets: dict[str, ImageSet], evaluations: dict[str, Path]
) -> ReportContent:
    pairs = [(sets[name], ImageScores.open(evaluations[name])) for name in ("base", "lighter")]
    return ReportContent(
        title="Lighter <discs>", comparison=comparison, model="lighter", note="2026-11-23",
        examples=before_after(*pairs, limit=12), metrics=metrics, p_winner=np.linspace(0.5, 0.9, 50),
        weight=np.linspace(0, 0.8, 50), recipe="seed: 0\nname: a <b>\n",
        facts={"Data": {"pairs": "4,000 | 12 dropped"}, "Time": {"train": "4 min"}},
    )


@pytest.fixture(scope="module")
def minimal(evaluations: dict[str, Path]) -> ReportContent:
    """Two models, no files of a run, and so few figures."""
    two = {name: evaluations[name] for name in ("base", "lighter")}
    comparison = dataclasses.replace(compare(two, "base"), attributes=())
    return ReportContent(title="t", comparison=comparison, model="lighter")


@pytest.fixture(scope="module")
def report(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report"), content=content)


class Page(HTMLParser):
    """Checks that tags are balanced, and collects every address and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.addresses, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.open += [] if tag in VOID else [tag]
        self.addresses += [value for name, value in attributes if name in ("src", "srcset", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_is_well_formed_and_needs_nothing_else(report: Path) -> None:
    page = Page(report.read_text())
    assert page.open == []
    assert len(page.addresses) == 2 * 5 + 2 * 8 + 2 * 12  # five plots in two themes, gallery, table
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(", report.read_text())


def test_same_content_gives_the_same_bytes(content: ReportContent, report: Path, tmp_path: Path) -> None:
    again = write_report(tmp_path / "again", content=content)
    files = sorted(path.relative_to(report.parent) for path in report.parent.rglob("*") if path.is_file())
    assert len(files) == 6 + 11
    for file in files:
        assert (again.parent / file).read_bytes() == (report.parent / file).read_bytes(), file


def test_text_of_the_content_is_escaped(report: Path) -> None:
    page = report.read_text()
    assert "<h1>Lighter &lt;discs&gt;</h1>" in page and "name: a &lt;b&gt;" in page
    assert "| pairs | 4,000 \\| 12 dropped |" in (report.parent / "report.md").read_text()


def test_numbers_of_the_page_are_those_of_the_comparison(report: Path, comparison: Comparison) -> None:
    text = Page(report.read_text()).text
    shown = comparison.pairing("lighter", "darkness").win_rate
    assert f"{100 * shown.rate:.1f}[{100 * shown.low:.1f}, {100 * shown.high:.1f}]" in text
    assert "Sign of over-optimisation: brightness rises while darkness falls." in text
    median = comparison.summaries["base"]["brightness"].median
    assert f"{median.value:.0f}" in text and "prompts (40 prompts)" in text


def test_markdown_is_complete_and_its_pictures_exist(report: Path) -> None:
    text = (report.parent / "report.md").read_text()
    for heading in ("Scores, and win-rates of lighter", "Medians and means", "Before and after", "Win-rates",
                    "Training", "Smoothed labels", "Facts"):
        assert f"## {heading}\n" in text
    pictures = re.findall(r'(?:src(?:set)?="|\]\()(figures/[^")]+)', text)
    assert len(pictures) == 11
    for picture in pictures:
        Image.open(report.parent / picture).verify()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    header = next(i for i, line in enumerate(rows) if line.startswith("| prompts (40"))
    assert len({row.count("|") for row in rows[header : header + 5]}) == 1
    assert "\n\n\n" not in text


def test_minimal_content_makes_a_report(minimal: ReportContent, tmp_path: Path) -> None:
    path = write_report(tmp_path / "r", content=minimal)
    page = path.read_text()
    assert Page(page).open == []
    assert "<script>" not in page and "Prompt by prompt" not in page and "<details>" not in page


def sealed(path: Path) -> SealedImage:
    return SealedImage(path, Seal.of_file(path))


def test_large_images_become_thumbnails(content: ReportContent, minimal: ReportContent, tmp_path: Path) -> None:
    big = tmp_path / "big.png"
    Image.new("RGB", (1024, 512), "teal").save(big)
    example = dataclasses.replace(content.examples[0], before=sealed(big), after=sealed(big))
    page = write_report(tmp_path / "r", content=dataclasses.replace(minimal, examples=[example])).read_text()
    encoded = re.search(r"data:image/jpeg;base64,([^\"]+)", page).group(1)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (320, 160)


def test_refusals(content: ReportContent, minimal: ReportContent, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown model 'lighte'; .* Did you mean 'lighter'?"):
        write_report(tmp_path, content=dataclasses.replace(content, model="lighte"))
    with pytest.raises(DataError, match="the report's model 'base' is the baseline itself; name another set"):
        write_report(tmp_path, content=dataclasses.replace(content, model="base"))
    (tmp_path / "broken.png").write_bytes(b"x")
    broken = dataclasses.replace(content.examples[0], before=sealed(tmp_path / "broken.png"))
    with pytest.raises(DataError, match=r"broken\.png cannot be read"):
        write_report(tmp_path / "r", content=dataclasses.replace(minimal, examples=[broken]))


def test_win_bars_add_up_and_begin_with_the_wins(comparison: Comparison) -> None:
    ax = win_rate_chart(comparison).axes[0]
    assert len(ax.patches) == 3 * 6
    for place, (scorer, model) in enumerate((s, m) for s in comparison.units for m in ("twin", "lighter")):
        widths = [patch.get_width() for patch in ax.patches[3 * place : 3 * place + 3]]
        assert sum(widths) == pytest.approx(100)
        assert widths[0] == pytest.approx(100 * comparison.pairing(model, scorer).win_rate.share_won)
    assert any(list(line.get_xdata()) == [50, 50] for line in ax.lines)


def test_change_chart_fills_only_the_training_reward(comparison: Comparison) -> None:
    marks = [line for line in change_chart(comparison).axes[0].lines if line.get_marker() != "None"]
    filled = [mark.get_markerfacecolor() != LIGHT.page for mark in marks]
    assert filled == [True, True, False, False, False, False]
    assert marks[1].get_xdata()[0] == comparison.pairing("lighter", "brightness").shift.value


def test_attribute_chart_shows_every_model_and_attribute(comparison: Comparison) -> None:
    ax = attribute_chart(comparison, "verifier", theme=DARK).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["light  (n = 40)", "square  (n = 8)"]
    assert len(ax.lines) == 2 * 2 * 3


def test_grid_shows_both_images_with_prompt_and_scores(content: ReportContent) -> None:
    example: BeforeAfter = content.examples[1]
    figure = before_after_grid(content.examples[1:4], ("base", "lighter"), scorer="brightness")
    assert len(figure.axes) == 6
    before, after = example.scores["brightness"]
    assert [ax.get_xlabel() for ax in figure.axes[:2]] == [f"base  {before:.4g}", f"lighter  {after:.4g}"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), np.asarray(Image.open(example.after.path)))


def test_training_curves_have_one_panel_per_known_column(metrics: Path, tmp_path: Path) -> None:
    shown = [ax for ax in training_curves(metrics).axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == [
        "Loss", "Implicit accuracy", "Preference logit", "Error against reference", "Gradient norm", "Learning rate",
        "Pairs per second",
    ]
    few = tmp_path / "metrics.jsonl"
    few.write_text('{"step": 1, "loss": 0.7}\n{"step": 2, "loss": 0.6}\n')
    ax, = (ax for ax in training_curves(few).axes if ax.get_visible())
    assert list(ax.lines[0].get_ydata()) == [0.7, 0.6]


def test_metrics_of_a_resumed_run_count_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 2, "loss": 1, "lr": 0.5}\n')
    columns = read_metrics(path)
    assert list(columns["step"]) == [1, 2] and list(columns["loss"]) == [3, 1]
    assert np.isnan(columns["lr"][0]) and columns["lr"][1] == 0.5
    path.write_text('{"step": 1}\n{"loss": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: expected an object with a step .*; delete the line"):
        read_metrics(path)
    path.write_text("")
    with pytest.raises(DataError, match="holds no metrics; train for at least one logging interval"):
        read_metrics(path)


def test_running_mean_keeps_a_line_and_skips_gaps() -> None:
    """A straight line is its own centred mean away from the ends; of 60 points the window is 3."""
    line = np.arange(60.0)
    np.testing.assert_allclose(running_mean(line)[1:-1], line[1:-1])
    line[30] = np.nan
    assert running_mean(line)[30] == pytest.approx(30) and running_mean(line)[29] == pytest.approx(28.5)
    short = np.array([1.0, 5.0])
    assert running_mean(short) is short


def test_label_quantiles_are_drawn(tmp_path: Path) -> None:
    figure = label_distribution(np.linspace(0.5, 0.9, 101), np.linspace(0, 0.8, 101))
    left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["5%: 0.52", "50%: 0.7", "95%: 0.88"]
    assert [line.get_xdata()[0] for line in right.lines] == pytest.approx([0.04, 0.4, 0.76])
    save(figure, tmp_path / "a.png")
    save(label_distribution(np.linspace(0.5, 0.9, 101), np.linspace(0, 0.8, 101)), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_wording_of_numbers() -> None:
    """The narrowest interval is 0.013 wide: two of its figures need 3 digits."""
    assert decimals([Interval(0.2, 0.2, 0.213), Interval(5, 4, 6)]) == 3
    assert decimals([Interval(200, 150, 260)]) == 0 and decimals([Interval(1, 1, 1)]) == 3
    assert interval_text(Interval(1, 0.25, 2), 1) == "[0.2, 2.0]"
    assert (joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])) == ("a", "a and b", "a, b and c")
    assert shortened("a long prompt", 9) == "a long..." and shortened("short", 9) == "short"


def test_a_report_of_three_models_has_everything(
    sets: dict[str, ImageSet], content: ReportContent, tmp_path: Path
) -> None:
    """Categories, appearance, diversity, the grid and the page over all prompts, from one call of `judge`."""
    scorers = {"brightness": Brightness(), "darkness": Brightness("darkness", -1.0)}
    styles = ("Arts <1>",) * 20 + ("Food",) * 20
    styled = {name: dataclasses.replace(images, categories=styles) for name, images in sets.items()}
    found = compare_image_sets(styled, scorers, tmp_path / "e", baseline="base", training_reward="brightness")
    implicit = implicit_accuracy("lighter", np.linspace(-1, 3, 40).reshape(2, 20), (100, 800), range(20))
    found = dataclasses.replace(found, implicit=(implicit,))
    opened = {name: (images, ImageScores.open(tmp_path / "e" / name)) for name, images in styled.items()}
    full = dataclasses.replace(
        content, comparison=found, sets=opened, metrics=None, p_winner=(), examples=content.examples[:2],
        categories=categories_of(styled["base"]),
        tables=paper_tables({"held-out": found}, "lighter"),
    )
    page = write_report(tmp_path / "r", content=full).read_text()
    text = Page(page).text
    titles = ("By category", "How the images look", "Diversity", "Implicit accuracy on held-out pairs", "All models")
    for title in titles:
        assert f"<h2>{title}</h2>" in page and f"## {title}\n" in (tmp_path / "r" / "report.md").read_text()
    assert "Arts <1> (20)" in text and f"{100 * implicit.accuracy.value:.1f}" in text
    look = next(d for d in found.drifts if (d.model, d.measure) == ("lighter", "brightness"))
    assert f"{look.shift.value:+.2f}[{look.shift.low:.2f}, {look.shift.high:.2f}]" in text
    assert f"The images look different, in standard deviations of base: brightness {look.shift.value:+.2f}" in text
    assert {"prompts.html", "tables.tex"} <= {path.name for path in (tmp_path / "r").iterdir()}
    assert '<a href="prompts.html">' in page
    assert json.loads((tmp_path / "r" / "comparison.json").read_text())["diversity"][0]["model"] == "base"


def test_model_grid_marks_the_best_of_each_row(sets: dict[str, ImageSet], evaluations: dict[str, Path]) -> None:
    rows = grid_rows({name: (sets[name], ImageScores.open(evaluations[name])) for name in sets}, limit=3)
    figure = model_grid(rows, list(sets), scorer="brightness")
    assert len(figure.axes) == 9 and [ax.get_title() for ax in figure.axes[:3]] == ["base", "twin", "lighter"]
    for row, axes in zip(rows, np.reshape(figure.axes, (3, 3)), strict=True):
        scores = [row.scores[name]["brightness"] for name in sets]
        bold = [ax.xaxis.label.get_fontweight() == "bold" for ax in axes]
        assert bold == [score == max(scores) for score in scores]
