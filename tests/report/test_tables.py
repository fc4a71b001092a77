"""The paper's layout: numbers are the comparison's, marks are ranks and tests, hostile names survive."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from smpo.core.errors import ConfigError, DataError
from smpo.evaluation.compare import Comparison, compare
from smpo.evaluation.statistics import holm_adjusted
from smpo.report.published import FILE, PublishedNumbers
from smpo.report.tables import LATEX_MARKS, Layout, latex_escaped, paper_tables, ranks, write_tables

HOSTILE = r"50% of {x}_1 & \cmd #2 | <b>"


@pytest.fixture(scope="module")
def comparison(evaluations: dict[str, Path]) -> Comparison:
    return compare(evaluations, "base")


@pytest.fixture(scope="module")
def published() -> PublishedNumbers:
    return PublishedNumbers(
        prompts="hpdv2", models={"base": "sd15/base", "lighter": "sd15/smpo"}, scorers={"brightness": "pickscore"}
    )


@pytest.fixture(scope="module")
def layouts(comparison: Comparison, published: PublishedNumbers) -> tuple[Layout, Layout]:
    return paper_tables({HOSTILE: comparison}, "lighter", published={HOSTILE: published})


def test_scores_and_win_rates_are_the_comparisons(layouts: tuple[Layout, Layout], comparison: Comparison) -> None:
    """Brightness is mapped to the paper's PickScore, which is printed x 100."""
    rows = {row.name: row.entries for row in layouts[0].blocks[0].rows}
    assert list(rows) == ["base", "twin", "lighter"] and {len(entries) for entries in rows.values()} == {6}
    summaries = comparison.summaries["lighter"]
    assert float(rows["lighter"][0].text) == pytest.approx(100 * summaries["brightness"].median.value, rel=1e-2)
    assert float(rows["lighter"][2].text) == pytest.approx(summaries["darkness"].median.value, rel=1e-2)
    shown = comparison.pairing("lighter", "brightness", "twin").win_rate
    wins = rows["twin"][1]
    assert (wins.text, wins.interval) == (f"{100 * shown.rate:.1f}", f"[{100 * shown.low:.1f}, {100 * shown.high:.1f}]")
    assert [rows["lighter"][i].text for i in (1, 3, 5)] == ["-"] * 3


def test_marks_are_ranks_and_adjusted_tests(layouts: tuple[Layout, Layout], comparison: Comparison) -> None:
    rows = {row.name: row.entries for row in layouts[0].blocks[0].rows}
    assert [rows[m][0].mark for m in ("base", "twin", "lighter")] == ["", "", "best"]  # two equal ones: two places
    assert [rows["base"][i].mark for i in (1, 3)] == ["better", "worse"]
    family = [comparison.pairing("lighter", s, m).win_rate.p_value for m in ("base", "twin") for s in comparison.units]
    assert max(holm_adjusted(family)[:2]) < 0.05


def test_holm_counts_all_prompt_sets(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(
        "smpo.report.tables.holm_adjusted", lambda values: sizes.append(len(values)) or holm_adjusted(values)
    )
    layout, _ = paper_tables({"a": comparison, "b": comparison}, "lighter")
    assert sizes == [2 * 2 * 3] and [block.heading for block in layout.blocks] == ["a (40 prompts)", "b (40 prompts)"]


def test_ranks() -> None:
    assert ranks({"a": 1.0, "b": 3.0, "c": 2.0, "d": 2.0}) == {"a": "", "b": "best", "c": "second", "d": "second"}
    assert ranks({"a": 1.0, "b": 2.0}) == {"a": "", "b": "best"}
    assert ranks({"a": 1.0, "b": 1.0}) == {"a": "", "b": ""}


def test_published_numbers_are_the_papers() -> None:
    """Spot checks against the printed Tables 2, 8 and 9, trailing zeros included."""
    scorers = {"p": "pickscore", "i": "imagereward", "h": "hpsv2_1"}
    numbers = PublishedNumbers(prompts="hpdv2", models={"x": "sdxl/mapo"}, scorers=scorers)
    assert [numbers.text("x", s, "median") for s in "pih"] == ["22.81", "1.224", "29.11"]
    assert numbers.text("x", "p", "win_rate") == "86.3" and numbers.text("x", "p", "mean") == ""
    assert numbers.text("y", "p", "median") == numbers.text("x", "q", "median") == ""
    assert (numbers.scale("p"), numbers.scale("i"), numbers.scale("q")) == (100, 1, 1)
    parti = PublishedNumbers(prompts="parti_prompts", models={"x": "sdxl/sft", "y": "sdxl/smpo"}, scorers=scorers)
    assert [parti.text("x", s, "median") for s in "pih"] == ["21.98", "0.660", "27.00"]
    assert parti.text("y", "p", "win_rate") == ""
    test_set = PublishedNumbers(prompts="pickapic_v2_test", models={"x": "sd15/smpo"}, scorers=scorers)
    assert (test_set.text("x", "p", "median"), test_set.text("x", "p", "mean")) == ("21.628", "21.576")
    numbers = re.findall(r"-?\d+\.\d+", FILE.read_text())
    assert len(numbers) == 2 * (2 * 5 * 5 + 2 * 4 * 5) + 2 * 5 * 5 * 2
    assert len(json.loads(FILE.read_text())["prompts"]) == 3


@pytest.mark.parametrize(("change", "message"), [
    ({"prompts": "hpd"}, "unknown report.published.prompts 'hpd'; known: hpdv2, parti_prompts, pickapic_v2_test."),
    ({"models": {"bse": "sd15/base"}}, "unknown set in report.published.models 'bse'; known: base, twin, lighter."),
    ({"models": {"base": "sd15"}}, "unknown model of the paper on hpdv2 'sd15'"),
    ({"scorers": {"light": "clip"}}, "unknown scorer in report.published.scorers 'light'"),
    ({"scorers": {"darkness": "hps"}}, "unknown metric of the paper 'hps'"),
])
def test_a_wrong_mapping_is_refused(
    comparison: Comparison, published: PublishedNumbers, change: dict, message: str
) -> None:
    wrong = published.model_copy(update=change)
    with pytest.raises(ConfigError, match=re.escape(message)):
        paper_tables({"a": comparison}, "lighter", published={"a": wrong})


def test_the_trained_model_is_found_under_any_name(published: PublishedNumbers) -> None:
    mapped = published.model_copy(update={"models": {"base": "sd15/base", "trained": "sd15/smpo"}})
    assert mapped.named("mine").models == {"base": "sd15/base", "mine": "sd15/smpo"}
    assert mapped.named("mine").text("mine", "brightness", "median") == "22.08"
    assert published.named("mine") == published


def test_other_refusals(comparison: Comparison, evaluations: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="unknown set on 'a' 'lighte'"):
        paper_tables({"a": comparison}, "lighte")

    fewer = dataclasses.replace(comparison, units={"brightness": "grey levels"})
    with pytest.raises(DataError, match="'b' was scored by brightness, others by brightness, darkness, verifier; "):
        paper_tables({"a": comparison, "b": fewer}, "lighter")


def test_latex_is_balanced_escaped_and_rectangular(layouts: tuple[Layout, Layout], tmp_path: Path) -> None:
    text = {path.suffix: path.read_text() for path in write_tables(tmp_path, layouts, title="t")}[".tex"]
    assert latex_escaped(HOSTILE) == r"50\% of \{x\}\_1 \& \textbackslash{}cmd \#2 | <b>"
    assert latex_escaped(HOSTILE) in text
    bare = re.sub(r"\\(textbackslash\{\}|[{}&%$#_\\])", "", re.sub(r"(?<!\\)%.*", "", text))
    depth = 0
    for mark in bare:
        depth += {"{": 1, "}": -1}.get(mark, 0)
        assert depth >= 0
    assert depth == 0
    begun, ended = (re.findall(rf"\\{word}{{([a-z]+\*?)}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended) == ["table*", "table*", "tabular", "tabular"]
    lines = [line for line in text.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {6}
    assert len(lines) == 2 * (1 + 3 * 2 + 2)  # heads, three models in two lines, two rows of the paper
    for mark in LATEX_MARKS:
        assert latex_escaped(mark) != mark


def test_markdown_rows_have_equal_cells(layouts: tuple[Layout, Layout], tmp_path: Path) -> None:
    text = {path.suffix: path.read_text() for path in write_tables(tmp_path, layouts, title="t")}[".md"]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8} and len(rows) == 2 * (2 + 3 + 2)
    assert "| *paper, sd15/smpo on hpdv2* | 22.08 |" in text and "\\<b\\>" in text


def test_page_shows_the_papers_numbers_and_escapes(layouts: tuple[Layout, Layout], tmp_path: Path) -> None:
    page = {path.suffix: path.read_text() for path in write_tables(tmp_path, layouts, title="a <b>")}[".html"]
    assert "<title>a &lt;b&gt;</title>" in page and "&amp; \\cmd #2 | &lt;b&gt;" in page
    assert '<th scope="row">paper, sd15/base on hpdv2</th><td>20.83</td><td>88.0</td>' in page
    assert page.count("<tr") == page.count("</tr>") and page.count("<section>") == page.count("</section>") == 2
