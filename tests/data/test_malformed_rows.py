"""Every field times every kind of garbage, in every container: the outcome is written down, and never a traceback.

`OUTCOMES` was written before the first run. "kept" stands where the value is odd but says something.
"""

import csv
import datetime
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smpo.data.layouts import LayoutFinder
from smpo.data.row_images import ImageFiles
from smpo.data.rows import raw_pair
from smpo.data.values import Unreadable
from smpo.preparation.options import PairOptions
from smpo.preparation.pairs import prepare_pairs
from smpo.preparation.row_checks import check_pair
from tests.data.pictures import png

ANY = PairOptions(max_dropped_fraction=1.0)
DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]

VALUES: dict[str, Any] = {
    "null": None, "nan": math.nan, "inf": math.inf, "empty": "", "blank": " \t", "true": True, "zero": 0, "minus": -1,
    "half": 0.5, "400 digits": 10 ** 400, "5000 digits": 10 ** 5000, "word": "yes", "list": [0], "object": {"a": 1},
    "bytes": b"\xff\xfe", "surrogate": "a\ud800", "decimal": Decimal("0.5"), "date": datetime.date(2024, 1, 2),
    "url": "https://x.org/a.png", "control": "a\x00b\x1b[31m", "numpy int": np.int64(7), "numpy nan": np.float32("nan"),
    "bad data uri": "data:image/png;base64,@@@", "not decodable": Unreadable("no UTF-8"), "deep list": DEEP,
}
M, K = "malformed_row", "kept"
OUTCOMES: dict[str, dict[str, str]] = {  # field -> value -> reason; what is not named is malformed_row
    "prompt": {"null": "empty_caption", "nan": "empty_caption", "empty": "empty_caption", "blank": "empty_caption",
               "word": K, "url": K, "control": K, "numpy nan": "empty_caption", "bad data uri": K},
    "image_0": {"null": "missing_image", "nan": "missing_image", "empty": "missing_image", "blank": "missing_image",
                "word": "missing_image", "bytes": "undecodable_image", "url": "missing_image",
                "numpy nan": "missing_image"},
    "label_0": {"null": "missing_label", "nan": "missing_label", "inf": "invalid_label", "empty": "missing_label",
                "blank": "missing_label", "true": K, "zero": K, "minus": "invalid_label", "half": "human_tie",
                "decimal": "human_tie", "numpy int": "invalid_label", "numpy nan": "missing_label"},
    "preferred": {"null": "missing_label", "nan": "missing_label", "empty": "missing_label", "blank": "missing_label",
                  "zero": K, "half": "human_tie", "decimal": "human_tie", "numpy nan": "missing_label"},
    "vote_share_0": {"null": "missing_label", "nan": "invalid_label", "inf": "invalid_label", "empty": "missing_label",
              "blank": "missing_label", "true": K, "zero": K, "minus": "invalid_label", "half": "human_tie",
              "decimal": "human_tie", "numpy int": "invalid_label", "numpy nan": "invalid_label"},
    "votes_0": {"nan": "invalid_label", "inf": "invalid_label", "true": "human_tie", "zero": K,
                "minus": "invalid_label", "half": K, "decimal": K, "numpy int": K, "numpy nan": "invalid_label"},
    "has_label": {"null": K, "nan": K, "empty": K, "blank": K, "true": K, "zero": "missing_label", "word": K,
                  "numpy nan": K},
    "pair_id": {"null": K, "nan": K, "inf": K, "empty": K, "blank": K, "zero": K, "minus": K, "half": K, "word": K,
                "decimal": K, "date": K, "url": K, "control": K, "numpy int": K, "numpy nan": K, "bad data uri": K},
}
OUTCOMES["image_1"] = OUTCOMES["image_0"]
CASES = [(field, name) for field in OUTCOMES for name in VALUES]
IN_JSON = [name for name, value in VALUES.items() if name != "5000 digits" and name != "deep list"
           and (value is None or isinstance(value, str | int | float | list | dict)) and not name.startswith("numpy")]
IN_ARROW = [name for name in VALUES if name not in (
    "400 digits", "5000 digits", "surrogate", "numpy int", "numpy nan", "not decodable", "deep list")]
AS_TEXT = {"empty": "", "blank": " \t", "zero": "0", "minus": "-1", "half": "0.5", "word": "yes",
           "url": VALUES["url"], "bad data uri": VALUES["bad data uri"], "list": "[0]", "inf": "inf", "nan": "nan"}


def outcome(field: str, name: str) -> str:
    return OUTCOMES[field].get(name, M)


def row_with(field: str, value: Any, number: int) -> dict[str, Any]:
    """A sound row but for `field`; labels that it replaces are absent."""
    row: dict[str, Any] = {"prompt": "a cat", "image_0": "a.png", "image_1": "b.png", "pair_id": f"r{number}"}
    if field in ("preferred", "vote_share_0"):
        return row | {field: value}
    if field == "votes_0":
        return row | {field: value, "votes_1": 1}
    return row | {"label_0": 1, field: value}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "b.png").write_bytes(png(1))
    return tmp_path


def reasons_in(source: Path, out: Path) -> list[str]:
    """Reason of each row of `source`, or kept."""
    report = prepare_pairs(str(source), out, options=ANY, workers=1)
    reasons = [K] * report.rows
    for line in (out / "dropped.jsonl").read_text().splitlines():
        values = json.loads(line)
        assert values["place"] and values["detail"] and values["detail"].isprintable()
        assert len(values["detail"]) < 400
        reasons[values["row"]] = values["reason"]
    return reasons


def compare(cases: list[tuple[str, str]], reasons: list[str]) -> None:
    expected = [(*case, outcome(*case)) for case in cases]
    assert [(*case, reason) for case, reason in zip(cases, reasons, strict=True)] == expected


def test_there_are_three_hundred_malformed_rows():
    broken = [name for field, name in CASES if outcome(field, name) != K]
    others = [outcome(field, name) for field in OUTCOMES for group in (IN_JSON, IN_ARROW, AS_TEXT) for name in group]
    assert len(broken) > 150 and len(broken) + sum(reason != K for reason in others) > 300


def test_any_python_value(folder: Path):
    reasons = []
    for number, (field, name) in enumerate(CASES):
        values = row_with(field, VALUES[name], number)
        mapping = LayoutFinder().required(values, source="here")
        pair = check_pair(raw_pair(number, values, mapping, ImageFiles(folder), place="here"), ANY)
        assert len(pair.detail) < 400 and pair.detail.isprintable() and pair.raw.row == number
        reasons.append(pair.reason or K)
    compare(CASES, reasons)


def test_json_lines(folder: Path):
    cases = [(field, name) for field in OUTCOMES for name in IN_JSON if name != "bytes"]
    lines = [json.dumps(row_with(field, VALUES[name], number)) for number, (field, name) in enumerate(cases)]
    (folder / "pairs.jsonl").write_text("\n\n".join(lines) + "\n\n")
    compare(cases, reasons_in(folder / "pairs.jsonl", folder / "out"))


def test_json_list(folder: Path):
    cases = [(field, name) for field in OUTCOMES for name in IN_JSON if name != "bytes"]
    rows = [row_with(field, VALUES[name], number) for number, (field, name) in enumerate(cases)]
    (folder / "pairs.json").write_text(json.dumps(rows))
    compare(cases, reasons_in(folder / "pairs.json", folder / "out"))


def test_parquet(folder: Path):
    """A shard each, for a column has one type."""
    cases = [(field, name) for field in OUTCOMES for name in IN_ARROW]
    shards = folder / "shards"
    shards.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).rename(shards / name)
    for number, (field, name) in enumerate(cases):
        table = pa.Table.from_pylist([row_with(field, VALUES[name], number)])
        pq.write_table(table, shards / f"{number:04d}.parquet")
    reasons = reasons_in(shards, folder / "out")
    assert reasons[cases.index(("pair_id", "decimal"))] == "duplicate_pair_id"  # 0.5 as a float and as a decimal
    reasons[cases.index(("pair_id", "decimal"))] = K
    compare(cases, reasons)


@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_cells(folder: Path, ending: str, delimiter: str):
    """All values are text, and a column that a row does not need is empty."""
    cases = [(field, name) for field in OUTCOMES for name in AS_TEXT]
    rows = [row_with(field, AS_TEXT[name], number) for number, (field, name) in enumerate(cases)]
    columns = ["prompt", "image_0", "image_1", "pair_id", "label_0", "preferred", "vote_share_0", "votes_0", "votes_1",
               "has_label"]
    with open(folder / f"pairs.{ending}", "w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    text = {("prompt", "zero"), ("prompt", "minus"), ("prompt", "half"), ("prompt", "list"), ("prompt", "inf"),
            ("prompt", "nan"), ("pair_id", "list")}  # in a table of text, these are text
    paths = {("image_0", "zero"), ("image_0", "minus"), ("image_0", "half"), ("image_0", "list"), ("image_0", "inf"),
             ("image_1", "zero"), ("image_1", "minus"), ("image_1", "half"), ("image_1", "list"), ("image_1", "inf")}
    other = {("preferred", "nan"): M, ("has_label", "nan"): M, ("votes_0", "empty"): M, ("votes_0", "blank"): M}
    expected = [K if case in text else "missing_image" if case in paths else other.get(case, outcome(*case))
                for case in cases]
    reasons = reasons_in(folder / f"pairs.{ending}", folder / "out")
    assert list(zip(cases, reasons, strict=True)) == list(zip(cases, expected, strict=True))


@pytest.mark.parametrize("line", [
    b"{", b"[1]", b"null", b"3", b'"text"', b"{]", b"\xff\xfe\xfa", b'{"prompt": ' + b"[" * 100_000,
    b'{"prompt": "x", "label_0": ' + b"9" * 5000 + b"}", b'{"prompt": "a", "prompt": "b"}', b"\x00\x00", b"{}",
    b'{"prompt": "\xe4", "chosen": "a.png", "rejected": "b.png"}', b'{"unknown": 1}', b"a,b,c",
])
def test_lines_that_are_no_row(folder: Path, line: bytes):
    good = b'{"prompt": "x", "chosen": "a.png", "rejected": "b.png"}'
    (folder / "pairs.jsonl").write_bytes(good + b"\r\n" + line + b"\r\n" + good + b"\r\n \r\n")
    assert reasons_in(folder / "pairs.jsonl", folder / "out") == [K, M, K]


def test_a_huge_line_and_many_columns(folder: Path):
    row = {"prompt": "x" * 3_000_000, "chosen": "a.png", "rejected": "b.png", **{f"c{i}": i for i in range(5000)}}
    (folder / "pairs.jsonl").write_text(json.dumps(row))
    report = prepare_pairs(str(folder / "pairs.jsonl"), folder / "out", options=ANY)
    assert report.kept == 1 and report.layout.endswith("5000 columns ignored (c0, c1, c2, c3, c4, c5, c6, c7, ...)")
