"""Parquet tables: columns of every type, missing and renamed ones, damaged files."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.case import Case, Expectation, Refused
from tests.fuzz.kept import MALFORMED, Kept, image
from tests.fuzz.row_faults import BAD_IMAGE, BAD_LABEL, NO_LABEL, NUM_SOUND, WON
from tests.fuzz.rows import file_case, one_of, put, sound_pair


def fixed() -> list[Case]:
    """All of them."""
    return list(_tables())


def _pickapic(number: int) -> dict[str, Any]:
    return {"caption": f"thing {number}", "jpg_0": image(2 * number), "jpg_1": image(2 * number + 1), "label_0": 1.0}


def _table_case(
    name: str, change: Callable[[dict[str, list]], dict[str, Any]], expect: Expectation, url: str = ""
) -> Case:
    """A parquet table of NUM_SOUND sound rows, column by column, as `change` leaves it."""

    def write(cwd: Path) -> None:
        rows = [_pickapic(number) for number in range(NUM_SOUND)]
        columns = change({key: [row[key] for row in rows] for key in rows[0]})
        pq.write_table(pa.table(columns), cwd / "t.parquet")

    return file_case(name, write, expect, source="t.parquet", url=url)


def _tables() -> Iterator[Case]:
    kept = [sound_pair(number) for number in range(NUM_SOUND)]
    none = {
        "as it is": {},
        "an unused column": {"model_0": ["x"] * 3},
        "nested columns": {"meta": [{"a": [1]}] * 3},
        "large binary": {"jpg_0": pa.array([image(0), image(2), image(4)], pa.large_binary())},
        "dictionary captions": {"caption": pa.array(["thing 0", "thing 1", "thing 2"]).dictionary_encode()},
        "image structs": {"jpg_0": [{"bytes": image(2 * n), "path": None} for n in range(3)]},
        "label int": {"label_0": [1, 1, 1]},
        "label float16": {"label_0": pa.array([1, 1, 1], pa.int8())},
        "has_label": {"has_label": [True] * 3},
        "has_label 1": {"has_label": [1] * 3},
        "ids null": {"pair_id": pa.nulls(3, pa.string())},
        "ids NaN": {"pair_id": [math.nan] * 3},
        "uids 0": {"image_0_uid": ["0"] * 3, "image_1_uid": ["0"] * 3},
        "uids None": {"image_0_uid": ["None"] * 3, "image_1_uid": ["None"] * 3},
        "string views": {"caption": pa.array(["thing 0", "thing 1", "thing 2"], pa.large_string())},
        "paths to the images": {"jpg_0": [{"bytes": None, "path": f"{n}-a.png"} for n in range(3)]},
    }
    for name, columns in none.items():
        yield _table_case(name, lambda sound, columns=columns: {**sound, **columns}, Kept(kept))
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "URLs as images": ({"jpg_0": ["https://x.invalid/a.png"] * 3}, BAD_IMAGE),
        "path texts as images": ({"jpg_0": [f"{n}-a.png" for n in range(3)]}, f"{BAD_IMAGE}|{WON}"),
        "null images": ({"jpg_0": pa.nulls(3, pa.binary())}, BAD_IMAGE),
        "numbers as images": ({"jpg_0": [1, 2, 3]}, BAD_IMAGE),
        "lists as images": ({"jpg_0": [[1], [2], [3]]}, BAD_IMAGE),
        "images without bytes": ({"jpg_0": [{"bytes": None, "path": "nowhere.png"}] * 3}, BAD_IMAGE),
        "number captions": ({"caption": [1, 2, 3]}, MALFORMED),
        "null captions": ({"caption": pa.nulls(3, pa.string())}, f"empty_caption|{MALFORMED}"),
        "binary captions": ({"caption": [b"\xff"] * 3}, MALFORMED),
        "list captions": ({"caption": [["a"]] * 3}, MALFORMED),
        "word labels": ({"label_0": ["win"] * 3}, BAD_LABEL),
        "bool captions": ({"caption": [True] * 3}, MALFORMED),
        "null labels": ({"label_0": pa.nulls(3, pa.float64())}, NO_LABEL),
        "list labels": ({"label_0": [[1.0]] * 3}, BAD_LABEL),
        "NaN labels": ({"label_0": [math.nan] * 3}, NO_LABEL),
        "has_label False": ({"has_label": [False] * 3}, NO_LABEL),
        "has_label 0": ({"has_label": [0] * 3}, NO_LABEL),
        "has_label text": ({"has_label": ["False"] * 3}, NO_LABEL),
        "labels of 2": ({"label_0": [2.0] * 3}, BAD_LABEL),
        "struct labels": ({"label_0": [{"a": 1}] * 3}, BAD_LABEL),
        "timestamps": ({"label_0": pa.array([1, 2, 3], pa.timestamp("s"))}, BAD_LABEL),
        "decimal votes": (
            {"label_0": pa.nulls(3, pa.float64()), "vote_share_0": pa.array([9, 9, 9], pa.decimal128(3))},
            f"{BAD_LABEL}|missing_label",
        ),
        "word votes": ({"label_0": pa.nulls(3, pa.float64()), "vote_share_0": ["x"] * 3}, BAD_LABEL),
        "struct vote_share_0": ({"vote_share_0": [{"a": 1}] * 3}, BAD_LABEL),
    }
    for name, (columns, reason) in bad.items():
        yield _table_case(name, lambda sound, columns=columns: {**sound, **columns}, _dropped_whole(reason))
    for name in ("caption", "jpg_0", "jpg_1"):
        yield _table_case(
            f"without {name}",
            lambda sound, name=name: {k: v for k, v in sound.items() if k != name},
            Refused((name, "t.parquet")),
        )
        yield _table_case(
            f"{name.upper()} in capitals",
            lambda sound, name=name: {k.upper() if k == name else k: v for k, v in sound.items()},
            one_of(Kept(kept), name),
        )
    yield _table_case(
        "TRL's columns",
        lambda s: {"prompt": s["caption"], "chosen": s["jpg_0"], "rejected": s["jpg_1"]},
        Kept(kept),
        "https://github.com/modelscope/ms-swift/issues/1922",
    )
    yield _table_case(
        "TRL's columns as structs",
        lambda s: {
            "prompt": s["caption"],
            "chosen": [{"bytes": b, "path": "x"} for b in s["jpg_0"]],
            "rejected": s["jpg_1"],
        },
        Kept(kept),
    )
    yield _table_case("no rows", lambda s: {key: [] for key in s}, Refused(("t.parquet",)))
    yield _table_case("no columns", lambda s: {}, Refused(("t.parquet",)))
    yield from _damaged_tables()


def _dropped_whole(reason: str) -> Expectation:
    """All rows are dropped, so that the source is refused with the reason; or it is refused as a whole."""
    kept = Kept([sound_pair(number) for number in range(NUM_SOUND)])
    reasons = tuple(one for one in reason.split("|") if one != WON)
    expect = Refused(((*reasons, "t.parquet"),))
    if WON not in reason.split("|"):
        return expect

    class _Kept:
        def complaints(self, results: Any, made: Any) -> list[str]:
            return [] if not kept.complaints(results, made) else expect.complaints(results, made)

    return _Kept()


def _damaged_tables() -> Iterator[Case]:
    def whole(cwd: Path) -> bytes:
        pq.write_table(pa.Table.from_pylist([_pickapic(number) for number in range(NUM_SOUND)]), cwd / "t.parquet")
        return (cwd / "t.parquet").read_bytes()

    damages: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda data: b"",
        "magic alone": lambda data: b"PAR1",
        "head alone": lambda data: data[:100],
        "tail alone": lambda data: data[-200:],
        "half": lambda data: data[: len(data) // 2],
        "one byte short": lambda data: data[:-1],
        "garbage at the end": lambda data: data + b"x" * 50,
        "zeros in the footer": lambda data: data[:-300] + bytes(200) + data[-100:],
        "CSV": lambda data: b"caption,jpg_0,jpg_1,label_0\na,b,c,1\n",
        "a PNG": lambda data: image(0),
        "LFS pointer": lambda data: b"version https://git-lfs.github.com/spec/v1\n",
    }
    for name, damage in damages.items():
        yield file_case(
            f"damaged: {name}",
            lambda cwd, damage=damage: put(cwd / "t.parquet", damage(whole(cwd))),
            Refused((("t.parquet", "undecodable", "truncated", "malformed"),)),
            source="t.parquet",
        )

    yield file_case(
        "damaged: zeros in an image",
        lambda cwd: put(cwd / "t.parquet", whole(cwd).replace(image(2)[60:400], bytes(340))),
        Kept([sound_pair(0), sound_pair(2)], {"undecodable_image|truncated_image": 1}),
        source="t.parquet",
    )
