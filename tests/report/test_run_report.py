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
from smpo.report.image_rows import image_rows
from smpo.report.run_report import ReportContent, write_report
from smpo.report.tables import paper_tables
from smpo.sampling.image_set import ImageSet, SealedImage
from tests.image_sets import Brightness

VOID = {"meta", "img", "source", "br"}


@pytest.fixture(scope="module")
def content(
    comparison: Comparison, metrics: Path, sets: dict[str, ImageSet], evaluations: dict[str, Path]
) -> ReportContent:
    pairs = {name: (sets[name], ImageScores.open(evaluations[name])) for name in ("base", "lighter")}
    return ReportContent(
        title="Lighter <discs>", comparison=comparison, model="lighter", note="2026-11-23",
        examples=image_rows(pairs, limit=12), metrics=metrics, p_winner=np.linspace(0.5, 0.9, 50),
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
    example = dataclasses.replace(content.examples[0], files=dict.fromkeys(("base", "lighter"), sealed(big)))
    page = write_report(tmp_path / "r", content=dataclasses.replace(minimal, examples=[example])).read_text()
    encoded = re.search(r"data:image/jpeg;base64,([^\"]+)", page).group(1)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (320, 160)


def test_refusals(content: ReportContent, minimal: ReportContent, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown model 'lighte'; .* Did you mean 'lighter'?"):
        write_report(tmp_path, content=dataclasses.replace(content, model="lighte"))
    with pytest.raises(DataError, match="the report's model 'base' is the baseline itself; name another set"):
        write_report(tmp_path, content=dataclasses.replace(content, model="base"))
    (tmp_path / "broken.png").write_bytes(b"x")
    files = {**content.examples[0].files, "base": sealed(tmp_path / "broken.png")}
    broken = dataclasses.replace(content.examples[0], files=files)
    with pytest.raises(DataError, match=r"broken\.png cannot be read"):
        write_report(tmp_path / "r", content=dataclasses.replace(minimal, examples=[broken]))


def test_a_report_of_three_models_has_everything(
    sets: dict[str, ImageSet], content: ReportContent, tmp_path: Path
) -> None:
    """Categories, appearance, diversity, the grid and the page over all prompts, from one call."""
    scorers = {"brightness": Brightness(), "darkness": Brightness("darkness", -1.0)}
    styles = ("Arts <1>",) * 20 + ("Food",) * 20
    styled = {name: dataclasses.replace(images, categories=styles) for name, images in sets.items()}
    comparison = compare_image_sets(styled, scorers, tmp_path / "e", baseline="base", training_reward="brightness")
    implicit = implicit_accuracy("lighter", np.linspace(-1, 3, 40).reshape(2, 20), (100, 800), range(20))
    comparison = dataclasses.replace(comparison, implicit=(implicit,))
    opened = {name: (images, ImageScores.open(tmp_path / "e" / name)) for name, images in styled.items()}
    full = dataclasses.replace(
        content, comparison=comparison, sets=opened, metrics=None, p_winner=(), examples=content.examples[:2],
        categories=categories_of(styled["base"]),
        tables=paper_tables({"held-out": comparison}, "lighter"),
    )
    page = write_report(tmp_path / "r", content=full).read_text()
    text = Page(page).text
    titles = ("By category", "How the images look", "Diversity", "Implicit accuracy on held-out pairs", "All models")
    for title in titles:
        assert f"<h2>{title}</h2>" in page and f"## {title}\n" in (tmp_path / "r" / "report.md").read_text()
    assert "Arts <1> (20)" in text and f"{100 * implicit.accuracy.value:.1f}" in text
    look = next(d for d in comparison.drifts if (d.model, d.measure) == ("lighter", "brightness"))
    assert f"{look.shift.value:+.2f}[{look.shift.low:.2f}, {look.shift.high:.2f}]" in text
    assert f"The images look different, in standard deviations of base: brightness {look.shift.value:+.2f}" in text
    assert {"prompts.html", "tables.tex"} <= {path.name for path in (tmp_path / "r").iterdir()}
    assert '<a href="prompts.html">' in page
    assert json.loads((tmp_path / "r" / "comparison.json").read_text())["diversity"][0]["model"] == "base"
