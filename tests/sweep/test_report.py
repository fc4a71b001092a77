"""The report of a sweep from hand-made rows."""

from pathlib import Path

import pytest

from smpo.core.errors import DataError
from smpo.evaluation.statistics import mean_interval
from smpo.sweep.plan import SweepFile
from smpo.sweep.report import by_row, gains, score_table, work_table, write_sweep_report


def row(name: str, seed: int, mean: float, *, base: float = 0.5, rate: float = 0.6, won: float | None = None, **extra):
    scores = {"mean": mean, "median": mean + 1, "base_mean": base, "base_median": base + 1, "win_rate": rate}
    wins = {} if won is None else {"wins_of": {"reward": won}}
    training = {"pairs": 100, "implicit_accuracy": 0.75, "steps": 8, "seconds": 0.5}
    curve = extra.get("curve")
    return {"row": name, "seed": seed, "scores": {"reward": scores}, "training": training, "curve": curve, **wins}


ROWS = [row("dpo", 0, 0.6, won=0.7), row("dpo", 1, 0.8, won=0.5), row("smpo", 0, 0.9), row("smpo", 1, 0.9)]
FILE = SweepFile(name="s", recipe="tiny-study", seeds=(0, 1), rows={
    "dpo": {"paper": {"reward": "21.29", "GPU hours": "204.8"}}, "smpo": {}}, report={"wins_of": "smpo"})


def test_the_interval_over_seeds_is_students() -> None:
    """Two seeds: t(0.975, 1) = 12.706; standard error 0.1."""
    interval = mean_interval([0.6, 0.8])
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.7, 0.7 - 1.2706, 0.7 + 1.2706), abs=1e-4)
    assert mean_interval([0.6]).low == mean_interval([0.6]).high == 0.6


def test_gains_are_paired_with_the_base_of_the_same_seed() -> None:
    assert gains([row("a", 0, 0.6, base=0.5), row("a", 1, 0.9, base=0.7)], "reward") == pytest.approx([0.1, 0.2])


def test_the_table_has_the_base_every_row_and_the_papers_numbers() -> None:
    base, dpo, smpo = score_table(FILE, ROWS).blocks[0].rows
    assert [base.name, dpo.name, smpo.name] == ["base", "dpo", "smpo"]
    assert [base.entries[0].text, dpo.entries[0].text, smpo.entries[0].text] == ["0.5", "0.7", "0.9"]
    assert [r.entries[1].text for r in (base, dpo, smpo)] == ["60.0", "60.0", "-"]
    assert smpo.entries[0].mark == "best" and dpo.published == ("21.29", "")
    assert dpo.published_name == "paper: GPU hours 204.8"


def test_without_a_row_of_ours_the_win_rates_are_over_the_base() -> None:
    file = FILE.model_copy(update={"report": FILE.report.model_copy(update={"wins_of": None})})
    base, dpo, _ = score_table(file, ROWS).blocks[0].rows
    assert (base.entries[1].text, dpo.entries[1].text) == ("-", "60.0")


def test_medians_are_shown_where_the_file_asks_for_them() -> None:
    file = FILE.model_copy(update={"report": FILE.report.model_copy(update={"statistic": "median"})})
    assert score_table(file, ROWS).blocks[0].rows[1].entries[0].text == "1.7"


def test_wins_over_the_base_are_shown_wherever_the_row_of_ours_stands() -> None:
    base = score_table(FILE, [*ROWS[2:], *ROWS[:2]]).blocks[0].rows[0]
    assert (base.name, base.entries[1].text) == ("base", "60.0")


def test_the_papers_cells_stand_below_ours_in_its_scale() -> None:
    """A mean of 0.7 over two seeds is shown as 70, the paper's 21.29 and 79.1 below score and win-rate."""
    report = {"wins_of": "smpo", "times_100": ["reward"], "paper": {"reward": "20.83", "reward WR": "88.0"}}
    rows = {"dpo": {"paper": {"reward": "21.29", "reward WR": "79.1"}}, "smpo": {}}
    table = score_table(SweepFile(name="s", recipe="tiny-study", rows=rows, report=report), ROWS)
    base, dpo, _ = table.blocks[0].rows
    assert table.scorers == (("reward", "x 100"),) and float(dpo.entries[0].text) == 70
    assert dpo.entries[0].interval == "[-57, 197]"  # 70 -+ 12.706 * 10
    assert (base.published, dpo.published) == (("20.83", "88.0"), ("21.29", "79.1"))


def test_means_stand_beside_medians_where_the_file_asks_for_them() -> None:
    report = {"statistic": "median", "beside": "mean"}
    rows = {"dpo": {"paper": {"reward": "21.03", "reward mean": "21.05"}}, "smpo": {}}
    table = score_table(SweepFile(name="s", recipe="tiny-study", rows=rows, report=report), ROWS)
    dpo = table.blocks[0].rows[1]
    assert (table.pair, [entry.text for entry in dpo.entries]) == (("Median", "Mean"), ["1.7", "0.7"])
    assert dpo.published == ("21.03", "21.05") and "win-rate" not in table.caption


def test_work_is_averaged_mean_interval() -> None:
    head, lines = work_table(ROWS)
    assert head == ["row", "seeds", "pairs seen", "implicit accuracy", "training s"]
    assert lines == [["dpo", "2", "100", "0.75", "4"], ["smpo", "2", "100", "0.75", "4"]]


def test_the_report_is_written_in_every_form(tmp_path: Path) -> None:
    page = write_sweep_report(tmp_path, FILE, ROWS)
    assert page.read_text().count("<tr>") > 3 and "21.29" in page.read_text()
    assert (tmp_path / "report.md").read_text().count("| dpo |") == 2
    assert "204.8" in (tmp_path / "tables.tex").read_text() and (tmp_path / "figures" / "gains-light.png").exists()


def test_curves_are_drawn_where_rows_have_an_x(tmp_path: Path) -> None:
    file = FILE.model_copy(update={"report": FILE.report.model_copy(update={"x": "noise", "wins_of": None})})
    rows = [row(f"dpo {x}", s, 0.6, curve=["dpo", x]) for x in (0.0, 0.2) for s in (0, 1)]
    write_sweep_report(tmp_path, file, rows)
    assert (tmp_path / "figures" / "gains-dark.png").exists() and "Gain over the base by noise" in (
        tmp_path / "report.md").read_text()


def test_rows_keep_their_order() -> None:
    assert list(by_row(ROWS)) == ["dpo", "smpo"]


def test_a_sweep_without_a_result_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run of sweep 's' is finished; nothing to report"):
        write_sweep_report(tmp_path, FILE, [])
