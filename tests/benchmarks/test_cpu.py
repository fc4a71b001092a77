"""What the CPU benchmark makes of its turns, on numbers worked by hand."""

import pytest

from benchmarks import cpu
from benchmarks.timing import Repetition


def turns(*pairs_per_s: float) -> list[Repetition]:
    """Turns of a second each."""
    return [Repetition(1.0, 1.0, {"pairs": rate}) for rate in pairs_per_s]


def test_rates_are_predicted_turn_by_turn_from_the_first_cases_share() -> None:
    """100 and 200 FLOP/s of products; 2 and 8 pairs/s of 10 FLOP: shares 0.2 and 0.4. Of 20 FLOP: 1 and 4 pairs/s."""
    products = [Repetition(1.0, 1.0, {"flops": rate}) for rate in (100.0, 200.0)]
    measured = {cpu.MATMUL: products, "first": turns(2, 8), "other": turns(0.75, 5)}
    rows = cpu.predictions(measured, {"first": 10.0, "other": 20.0})
    assert rows["first"]["error"] == {"median": 0, "lowest": 0, "highest": 0}
    assert rows["first"]["share_of_matmul"]["lowest"] == pytest.approx(0.2)
    other = rows["other"]
    assert (other["predicted_pairs_per_s"]["lowest"], other["predicted_pairs_per_s"]["highest"]) == (1, 4)
    assert (other["error"]["highest"], other["error"]["lowest"]) == pytest.approx((1 / 3, -0.2))
    assert other["share_of_matmul"]["highest"] == pytest.approx(5 * 20 / 200)
    assert "+7% [-20%, +33%]" in cpu.hours_table(rows)


def test_compiling_is_won_back_or_never() -> None:
    """Steps of 2 s and 1.5 s; the first took 21.5 s: 20 s more, won back by half a second a step."""
    steps = {name: [Repetition(wall, wall, {"pairs": 4})] for name, wall in ((cpu.PLAIN, 2.0), (cpu.COMPILED, 1.5))}
    won = cpu.break_even(steps, {cpu.PLAIN: 2.0, cpu.COMPILED: 21.5})
    assert won == {"compile_s": 20.0, "paid_after_steps": 40.0}
    row = cpu.beside_plain(steps, cpu.COMPILED)
    assert row["x_plain"]["median"] == pytest.approx(4 / 3)
    steps[cpu.COMPILED] = steps[cpu.PLAIN]
    lost = cpu.break_even(steps, {cpu.COMPILED: 22.0})
    assert lost == {"compile_s": 20.0, "paid_after_steps": None}
    lines = cpu.options_table({"a": {**row, **won}, "b": {**row, **lost}, "c": row}).splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[-3:-1]] for line in lines]
    assert cells == [["20", "40"], ["20", "never"], ["", ""]]
