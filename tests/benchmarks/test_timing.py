"""Turns, tables and kinds of operations, on numbers worked by hand."""

import torch

from benchmarks import timing
from benchmarks.op_profile import OTHER, kind_of, profiled
from benchmarks.timing import Case, Results, alternate, markdown, number, ratios, spread

CPU = torch.device("cpu")


def test_cases_take_turns_and_the_first_turn_does_not_count() -> None:
    calls: list[str] = []

    def case(name: str) -> Case:
        def work() -> dict[str, float]:
            calls.append(name)
            return {"pairs": len(calls)}

        return Case(name, work)

    turns = alternate([case("a"), case("b")], repetitions=2, device=CPU)
    assert calls == ["a", "b"] * 3
    assert [turn.counts["pairs"] for turn in turns["a"]] == [3, 5]
    assert [turn.counts["pairs"] for turn in turns["b"]] == [4, 6]


def test_ratios_are_taken_turn_by_turn() -> None:
    """6 / 3, 8 / 2, 9 / 9: median 2, where the ratio of medians would be 8 / 3."""
    assert ratios([6, 8, 9], [3, 2, 9]) == {"median": 2, "lowest": 1, "highest": 4}


def test_numbers_in_a_table() -> None:
    values = (12345.6, 12.345, 0.012345, 0.0000123)
    assert [number(value) for value in values] == ["12,346", "12.3", "0.0123", "1.2e-05"]
    assert spread({"median": 2.0, "lowest": 1.5, "highest": 250.0}) == "2 [1.5, 250]"
    assert markdown(["case", "rate"], [["long name", "1"]]).splitlines() == [
        "| case      | rate |",
        "| --------- | ---: |",
        "| long name |    1 |",
    ]


def test_results_keep_other_sections_of_the_same_machine_alone(tmp_path, monkeypatch) -> None:
    path = tmp_path / "deep" / "x.json"
    Results(path, CPU).put("one", 1)
    again = Results(path, CPU)
    again.put("two", 2)
    assert again.content["one"] == 1 and set(again.content["measured"]) == {"one", "two"}
    monkeypatch.setattr(timing, "machine", lambda device: {"device": "another"})
    assert "one" not in Results(path, CPU).content


def test_operations_have_kinds() -> None:
    kinds = {
        "aten::mkldnn_convolution": "convolution", "aten::convolution_backward": "convolution",
        "aten::addmm": "matrix product", "aten::mm": "matrix product", "aten::bmm": "matrix product",
        "aten::_scaled_dot_product_flash_attention_for_cpu": "attention", "aten::native_group_norm": "normalisation",
        "aten::copy_": "copy, index, cat", "aten::_foreach_add_": "optimizer", "aten::gelu": OTHER, "aten::add_": OTHER,
    }
    assert {name: kind_of(name) for name in kinds} == kinds


def test_a_profile_finds_the_costly_operation() -> None:
    a = torch.randn(400, 400)

    def step() -> dict[str, float]:
        for _ in range(20):
            a @ a
        return {}

    found = profiled(step, CPU, top=1)
    assert found["operations"][0]["name"] == "aten::mm" and found["operations"][0]["calls"] == 20
    assert max(found["shares"], key=found["shares"].get) == "matrix product"
