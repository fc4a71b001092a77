"""Rows of jsonl files and parquet tables: sound ones with a few that are wrong in a known way among them."""

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.case import Case, Expectation, Refused
from tests.fuzz.kept import ANY, MALFORMED, Kept, Pair, command, image, pair
from tests.fuzz.world import World

MISSING = "missing_image"
BAD_IMAGE = f"{MISSING}|{MALFORMED}|undecodable_image"
BAD_LABEL = f"invalid_label|{MALFORMED}"
NO_LABEL = f"missing_label|{MALFORMED}"
TIE = "human_tie"
NUM_SOUND = 3
HUGE = 10**400


@dataclass(frozen=True)
class Fault:
    """Values that replace those of a sound row, and what comes of the row.

    Attributes:
        changes: key -> value; DROP takes the key out.
        outcome: reasons it is dropped for, or "first", "second": it is kept, and that image wins; "none": no winner.
        source: a public thread.
    """

    changes: dict[str, Any]
    outcome: str
    source: str = ""


DROP = object()
WON, LOST, NEITHER = "first", "second", "none"

CHOSEN: tuple[Fault, ...] = (  # rows of {"prompt", "chosen", "rejected"}
    Fault({"label_0": 0.5}, TIE),
    Fault({"label_0": 0}, MALFORMED),
    Fault({"label_0": 1}, WON),
    Fault({"label_0": None}, WON),
    Fault({"preferred": 1}, MALFORMED),
    Fault({"preferred": 0}, WON),
    Fault({"label_0": "tie"}, MALFORMED),
    Fault({"label_0": [1]}, MALFORMED),
    Fault({"preferred": [0]}, MALFORMED),
    Fault({"label_0": 0.2}, BAD_LABEL),
    Fault({"p_win": 0.5}, f"{TIE}|{WON}"),
    Fault({"p_win": "x"}, BAD_LABEL),
    Fault({"p_win": 2}, BAD_LABEL),
    Fault({"p_win": [0.5]}, BAD_LABEL),
    Fault({"votes_0": 3, "votes_1": 1}, WON),
    Fault({"votes_0": HUGE, "votes_1": 1}, BAD_LABEL),
    Fault({"votes_0": "a", "votes_1": "b"}, BAD_LABEL),
    Fault({"votes_0": -3, "votes_1": 1}, BAD_LABEL),
    Fault({"prompt": None}, f"empty_caption|{MALFORMED}"),
    Fault({"prompt": ""}, "empty_caption"),
    Fault({"prompt": " \t\n "}, "empty_caption"),
    Fault({"prompt": 5}, MALFORMED),
    Fault({"prompt": ["a"]}, MALFORMED),
    Fault({"prompt": {"a": 1}}, MALFORMED),
    Fault({"prompt": True}, MALFORMED),
    Fault({"prompt": "\ud800"}, MALFORMED),
    Fault({"prompt": "a \udcff b"}, MALFORMED),
    Fault({"prompt": DROP}, f"empty_caption|{MALFORMED}"),
    Fault(  # TRL's conversations are read (docs/data.md); this one has no text of the user
        {"prompt": [{"role": "system", "content": "a"}]}, MALFORMED, "https://github.com/OpenRLHF/OpenRLHF/issues/909"
    ),
    Fault({"chosen": DROP}, f"{MALFORMED}|{MISSING}"),
    Fault({"rejected": DROP}, f"{MALFORMED}|{MISSING}"),
    Fault({"chosen": None}, BAD_IMAGE),
    Fault({"rejected": None}, BAD_IMAGE),
    Fault({"chosen": 5}, BAD_IMAGE),
    Fault({"chosen": []}, BAD_IMAGE),
    Fault({"rejected": {}}, BAD_IMAGE),
    Fault({"chosen": True}, BAD_IMAGE),
    Fault({"chosen": ""}, BAD_IMAGE),
    Fault({"chosen": "."}, BAD_IMAGE),
    Fault({"chosen": ".."}, BAD_IMAGE),
    Fault({"chosen": "nowhere.png"}, MISSING),
    Fault({"chosen": "pairs.jsonl/x"}, BAD_IMAGE),
    Fault({"chosen": "https://x.invalid/a.png"}, BAD_IMAGE, "https://github.com/huggingface/datasets/issues/6777"),
    Fault({"chosen": "s3://bucket/a.png"}, BAD_IMAGE),
    Fault({"chosen": "a\x00b.png"}, BAD_IMAGE),
    Fault({"chosen": "x" * 5000}, BAD_IMAGE),
    Fault({"chosen": "/etc/passwd"}, f"{ANY}"),
    Fault({"chosen": "/dev/zero"}, BAD_IMAGE),
    Fault({"chosen": "/dev/null"}, BAD_IMAGE),
    Fault({"chosen": "\ud800.png"}, BAD_IMAGE),
    Fault({"chosen": "~/x.png"}, BAD_IMAGE),
    Fault({"chosen": ["a.png", "b.png"]}, BAD_IMAGE),
    Fault({"rejected": "same"}, "identical_images"),
    Fault({"chosen": "data:image/png;base64,!!!"}, BAD_IMAGE),
    Fault({"chosen": "data:text/html,<b>"}, BAD_IMAGE),
    Fault({"chosen": {"bytes": None, "path": None}}, BAD_IMAGE),
    Fault({"pair_id": None}, WON),
    Fault({"pair_id": ""}, WON),
    Fault({"pair_id": 5}, WON),
    Fault({"pair_id": [1]}, f"{MALFORMED}|{WON}"),
    Fault({"pair_id": {"a": 1}}, f"{MALFORMED}|{WON}"),
    Fault({"pair_id": "\ud800"}, f"{MALFORMED}|{WON}"),
    Fault({"extra": HUGE}, WON),
    Fault({"extra": {"deep": [[[1]]]}}, WON),
    Fault({"images": ["x"], "score": None}, WON, "https://github.com/axolotl-ai-cloud/axolotl/issues/2415"),
)
LABELLED: tuple[Fault, ...] = (  # rows of {"caption", "image_0", "image_1", "label_0": 1}
    Fault({"label_0": 0}, LOST),
    Fault({"label_0": 1.0}, WON),
    Fault({"label_0": 0.5}, TIE),
    Fault({"label_0": None}, NO_LABEL),
    Fault({"label_0": DROP}, NO_LABEL),
    Fault({"label_0": math.nan}, NO_LABEL),
    Fault({"label_0": math.inf}, BAD_LABEL),
    Fault({"label_0": 2}, BAD_LABEL),
    Fault({"label_0": -1}, BAD_LABEL),
    Fault({"label_0": 0.3}, BAD_LABEL),
    Fault({"label_0": "win"}, BAD_LABEL),
    Fault({"label_0": "left"}, BAD_LABEL),
    Fault({"label_0": [1, 0]}, BAD_LABEL),
    Fault({"label_0": {}}, BAD_LABEL),
    Fault({"label_0": HUGE}, BAD_LABEL),
    Fault({"label_0": 1e-320}, BAD_LABEL),
    Fault({"label_0": DROP, "preferred": 0}, WON),
    Fault({"label_0": DROP, "preferred": 1}, LOST),
    Fault({"label_0": DROP, "preferred": 2}, BAD_LABEL),
    Fault({"label_0": DROP, "preferred": "first"}, BAD_LABEL),
    Fault({"label_0": DROP, "preferred": [0]}, BAD_LABEL),
    Fault({"label_0": DROP, "preferred": {}}, BAD_LABEL),
    Fault({"label_0": 1, "preferred": 1}, BAD_LABEL),
    Fault({"label_0": 0, "preferred": 0}, BAD_LABEL),
    Fault({"label_0": 1, "preferred": 0}, WON),
    Fault({"label_0": DROP, "p_win": 0.8}, WON),
    Fault({"label_0": DROP, "p_win": 0.2}, LOST),
    Fault({"label_0": DROP, "p_win": 0.5}, TIE),
    Fault({"label_0": DROP, "p_win": 1.5}, BAD_LABEL),
    Fault({"label_0": DROP, "p_win": -0.1}, BAD_LABEL),
    Fault({"label_0": DROP, "p_win": math.nan}, f"{BAD_LABEL}|missing_label"),
    Fault({"label_0": DROP, "p_win": math.inf}, BAD_LABEL),
    Fault({"label_0": DROP, "p_win": HUGE}, BAD_LABEL),
    Fault({"label_0": DROP, "p_win": "most"}, BAD_LABEL),
    Fault({"label_0": DROP, "votes_0": 1, "votes_1": 3}, LOST),
    Fault({"label_0": DROP, "votes_0": 0, "votes_1": 0}, NO_LABEL),
    Fault({"label_0": DROP, "votes_0": 2, "votes_1": 2}, TIE),
    Fault({"label_0": DROP, "votes_0": 2}, f"{NO_LABEL}|invalid_label"),
    Fault({"label_0": DROP, "votes_0": -1, "votes_1": 2}, BAD_LABEL),
    Fault({"label_0": DROP, "votes_0": HUGE, "votes_1": 2}, BAD_LABEL),
    Fault({"label_0": DROP, "votes_0": [1], "votes_1": 2}, BAD_LABEL),
    Fault({"label_0": DROP, "votes_0": math.nan, "votes_1": 2}, f"{NO_LABEL}|invalid_label"),
    Fault({"label_0": 1, "has_label": False}, NO_LABEL),
    Fault({"label_0": 1, "has_label": 0}, NO_LABEL),
    Fault({"label_0": 1, "has_label": "False"}, NO_LABEL),
    Fault({"label_0": 1, "has_label": True}, WON),
    Fault({"label_0": 1, "has_label": 1}, WON),
    Fault({"label_0": 1, "has_label": None}, f"{WON}|missing_label"),
    Fault({"label_0": 1, "has_label": "maybe"}, f"{MALFORMED}"),
    Fault({"image_1": "same"}, "identical_images"),
    Fault({"image_0": None}, BAD_IMAGE),
    Fault({"image_1": 3}, BAD_IMAGE),
    Fault({"caption": None}, f"empty_caption|{MALFORMED}"),
    Fault({"caption": "caf\u00e9 \U0001f600 \u202e"}, WON),
    Fault({"caption": "x" * 20000}, WON),
    Fault({"caption": "a\nb"}, WON),
    Fault({"caption": "<b>[/red] %s {x}"}, WON),
    Fault({"caption": math.nan}, f"{MALFORMED}|empty_caption"),
)
LINES: tuple[tuple[bytes, str], ...] = (  # whole lines of a jsonl file -> the reason they are dropped for
    (b"{", MALFORMED),
    (b"[1, 2]", MALFORMED),
    (b"null", MALFORMED),
    (b'"text"', MALFORMED),
    (b"5", MALFORMED),
    (b"NaN", MALFORMED),
    (b"{}", f"{MALFORMED}|empty_caption|{MISSING}"),
    (b"{'prompt': 'single quotes'}", MALFORMED),
    (b'{"prompt": "a", }', MALFORMED),
    (b"\xff\xfe", MALFORMED),
    ('{"prompt": "caf\u00e9"}'.encode("latin-1"), MALFORMED),
    (b"<html></html>", MALFORMED),
    (b"[" * 5000 + b"]" * 5000, MALFORMED),
    (b'{"a": ' * 3000 + b"1" + b"}" * 3000, MALFORMED),
    (b"# comment", MALFORMED),
    (b'{"seed": ' + b"9" * 6000 + b"}", MALFORMED),
    (b"\x00\x00\x00", MALFORMED),
    (b'{"prompt": "a"} {"prompt": "b"}', MALFORMED),
    (b"version https://git-lfs.github.com/spec/v1", MALFORMED),
    (b"<<<<<<< HEAD", MALFORMED),
    (b"...", MALFORMED),
)


def fixed() -> list[Case]:
    """Each fault alone among sound rows, then whole files and tables."""
    found = [_jsonl(CHOSEN, [fault], "chosen") for fault in CHOSEN] + [
        _jsonl(LABELLED, [fault], "labelled") for fault in LABELLED
    ]
    found += [_lines_case([line], reason) for line, reason in LINES]
    return found + list(_whole_files()) + list(_tables())


def _sound(kind: str, number: int) -> dict[str, Any]:
    names = {"first": f"{number}-a.png", "second": f"{number}-b.png"}
    if kind == "chosen":
        return {"prompt": f"thing {number}", "chosen": names["first"], "rejected": names["second"]}
    return {"caption": f"thing {number}", "image_0": names["first"], "image_1": names["second"], "label_0": 1}


def _write_images(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}-a.png").write_bytes(image(2 * number))
        (folder / f"{number}-b.png").write_bytes(image(2 * number + 1))


def _sound_pair(number: int, prompt: str | None = None, *, won: bool = True) -> Pair:
    images = image(2 * number), image(2 * number + 1)
    return pair(prompt or f"thing {number}", *(images if won else images[::-1]))


def _changed(row: dict[str, Any], fault: Fault) -> dict[str, Any]:
    first = row.get("chosen", row.get("image_0"))
    given = {key: first if value == "same" else value for key, value in fault.changes.items()}
    return {key: value for key, value in {**row, **given}.items() if value is not DROP}


def _jsonl(_: Sequence[Fault], faults: Sequence[Fault], kind: str) -> Case:
    """Sound rows, and one row of each fault between them."""
    total = NUM_SOUND + len(faults)

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.write_recipe(cwd)
        _write_images(cwd, total)
        rows = [_sound(kind, number) for number in range(NUM_SOUND)]
        rows += [_changed(_sound(kind, NUM_SOUND + index), fault) for index, fault in enumerate(faults)]
        rows.append(rows.pop(0))
        (cwd / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [command("pairs.jsonl")]

    text = "; ".join(_shown(fault.changes) for fault in faults)
    return Case(f"jsonl {kind} {text[:120]}", make, expected(kind, faults), faults[0].source)


def _shown(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key}={'-' if value is DROP else repr(value)[:40]}" for key, value in changes.items())


def expected(kind: str, faults: Sequence[Fault]) -> Expectation:
    """What comes of NUM_SOUND sound rows and these."""
    prompt = "prompt" if kind == "chosen" else "caption"
    alternatives: list[tuple[list[Pair], dict[str, int]]] = [([_sound_pair(number) for number in range(NUM_SOUND)], {})]
    for number, fault in enumerate(faults, start=NUM_SOUND):
        grown = []
        for outcome in _outcomes(fault.outcome):
            for kept, dropped in alternatives:
                if outcome in (WON, LOST):
                    text = fault.changes.get(prompt, f"thing {number}")
                    grown.append(([*kept, _sound_pair(number, text, won=outcome == WON)], dropped))
                else:
                    grown.append((kept, {**dropped, outcome: dropped.get(outcome, 0) + 1}))
        alternatives = grown
    return _AnyOf([Kept(kept, dropped) for kept, dropped in alternatives])


def _outcomes(outcome: str) -> list[str]:
    """The alternatives: being kept apart, all reasons as one."""
    parts = outcome.split("|")
    kept, reasons = [one for one in parts if one in (WON, LOST)], [one for one in parts if one not in (WON, LOST)]
    return kept + (["|".join(reasons)] if reasons else [])


@dataclass(frozen=True)
class _AnyOf:
    outcomes: Sequence[Kept]

    def complaints(self, results: Any, made: Any) -> list[str]:
        """See `Expectation`: those of the first outcome unless one of them is met."""
        found = [outcome.complaints(results, made) for outcome in self.outcomes]
        return [] if [] in found else found[0]


def _lines_case(lines: Sequence[bytes], reason: str) -> Case:
    def make(cwd: Path, world: World) -> list[list[str]]:
        world.write_recipe(cwd)
        _write_images(cwd, NUM_SOUND)
        sound = [json.dumps(_sound("chosen", number)).encode() for number in range(NUM_SOUND)]
        (cwd / "pairs.jsonl").write_bytes(b"\n".join([sound[0], *lines, *sound[1:]]) + b"\n")
        return [command("pairs.jsonl")]

    sound = [_sound_pair(number) for number in range(NUM_SOUND)]
    return Case(f"jsonl line {b' | '.join(lines)[:60]!r}", make, Kept(sound, {reason: len(lines)}))


def file_case(
    name: str,
    write: Callable[[Path], None],
    expect: Expectation,
    *,
    source: str = "pairs.jsonl",
    url: str = "",
    **options: Any,
) -> Case:
    """A source that `write` makes in the working folder."""

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.write_recipe(cwd)
        _write_images(cwd, NUM_SOUND)
        write(cwd)
        return [command(source, **options)]

    return Case(f"{source}: {name}", make, expect, url)


def _whole_files() -> Iterator[Case]:
    sound = [_sound("chosen", number) for number in range(NUM_SOUND)]
    lines = [json.dumps(row) for row in sound]
    all_kept = Kept([_sound_pair(number) for number in range(NUM_SOUND)])
    texts: dict[str, tuple[bytes, Expectation]] = {
        "CRLF": ("\r\n".join(lines).encode(), all_kept),
        "blank last line": ("\n".join(lines).encode() + b"\n\n\n", all_kept),
        "blank lines between": ("\n\n".join(lines).encode(), all_kept),
        "UTF-8 mark": (b"\xef\xbb\xbf" + "\n".join(lines).encode(), all_kept),
        "spaces around": ("\n".join(f"  {line}\t" for line in lines).encode(), all_kept),
        "old Mac line ends": ("\r".join(lines).encode(), _one_of(all_kept, "pairs.jsonl")),
        "UTF-16": ("\n".join(lines).encode("utf-16"), _one_of(all_kept, "pairs.jsonl")),
        "empty": (b"", Refused(("pairs.jsonl",))),
        "blank": (b"\n \n", Refused(("pairs.jsonl",))),
        "binary": (bytes(range(256)) * 4, Refused((("pairs.jsonl", "malformed"),))),
        "JSON array": (json.dumps(sound).encode(), _one_of(all_kept, "pairs.jsonl")),
        "indented objects": (json.dumps(sound[0], indent=1).encode(), Refused((("pairs.jsonl", "malformed"),))),
        "only broken lines": (b"{\n{\n", Refused((("malformed", "pairs.jsonl"),))),
        "LFS pointer": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
            Refused((("pairs.jsonl", "malformed"),)),
        ),
        "prompt alone": (b'{"prompt": "a"}\n', Refused((("chosen", "image_0"), "pairs.jsonl"))),
        "query and response": (
            b'{"query": "a", "response": "0-a.png", "rejected_response": "0-b.png"}\n',
            Refused(("prompt",)),
        ),
        "ties alone": ("\n".join(json.dumps({**row, "label_0": 0.5}) for row in sound).encode(), Refused(("tie",))),
    }
    for name, (content, expect) in texts.items():
        yield file_case(name, lambda cwd, content=content: _put(cwd / "pairs.jsonl", content), expect)
    yield from _identities(sound)


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _one_of(kept: Kept, fragment: str) -> Expectation:
    class _KeptOrRefused:
        def complaints(self, results: Any, made: Any) -> list[str]:
            found = kept.complaints(results, made)
            return [] if not found or not Refused((fragment,)).complaints(results, made) else found

    return _KeptOrRefused()


def _identities(sound: list[dict[str, Any]]) -> Iterator[Case]:
    """Ids that people fill with nothing, and orders that hide labels."""
    kept = [_sound_pair(number) for number in range(NUM_SOUND)]
    for value in (None, "", math.nan, "nan", "None", "null", " "):
        rows = [{**row, "pair_id": value} for row in sound]
        strict = value is None or value == "" or isinstance(value, float)
        expect = Kept(kept) if strict else _AnyOf([Kept(kept), Kept(kept[:1], {"duplicate_pair_id": NUM_SOUND - 1})])
        yield _rows_case(f"pair_id {value!r} in all rows", rows, expect)
    yield _rows_case(
        "pair_id twice",
        [{**row, "pair_id": "x"} for row in sound],
        Kept(kept[:1], {"duplicate_pair_id": NUM_SOUND - 1}),
    )
    for uid in ("0", "None", "", "nan", None):
        rows = [{**row, "image_0_uid": uid, "image_1_uid": uid} for row in sound]
        yield _rows_case(
            f"both uids {uid!r} in all rows", rows, Kept(kept), "https://github.com/huggingface/datasets/issues/7337"
        )
    rows = [_sound("labelled", number) for number in range(NUM_SOUND)]
    first_unlabelled = [{key: value for key, value in rows[0].items() if key != "label_0"}, *rows[1:]]
    yield _rows_case("first row unlabelled", first_unlabelled, Kept(kept[1:], {"missing_label": 1}))
    yield _rows_case(
        "no row labelled", [{k: v for k, v in row.items() if k != "label_0"} for row in rows], Refused(("label",))
    )
    yield _rows_case(
        "keys in another order in each row", [dict(reversed(row.items())) for row in sound[:1]] + sound[1:], Kept(kept)
    )
    yield _rows_case("forms mixed", [sound[0], rows[1], sound[2]], Kept(kept))
    yield _rows_case("windows paths", [{**row, "chosen": f".\\{row['chosen']}"} for row in sound], Kept(kept))
    yield _rows_case("./ paths", [{**row, "chosen": f"./{row['chosen']}"} for row in sound], Kept(kept))
    for left, right in (("image_w", "image_l"), ("preferred_image", "rejected_image"), ("winner", "loser")):
        renamed = [{"prompt": row["prompt"], left: row["chosen"], right: row["rejected"]} for row in sound]
        yield _rows_case(f"{left} and {right}", renamed, _one_of(Kept(kept), left) if left == "winner" else Kept(kept))
    yield _rows_case(
        "text for prompt",
        [{"text": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]} for row in sound],
        _one_of(Kept(kept), "prompt"),
    )


def _rows_case(name: str, rows: Iterable[dict[str, Any]], expect: Expectation, url: str = "") -> Case:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return file_case(name, lambda cwd: _put(cwd / "pairs.jsonl", content), expect, url=url)


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
    kept = [_sound_pair(number) for number in range(NUM_SOUND)]
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
        "path texts as images": ({"jpg_0": ["nowhere.png"] * 3}, BAD_IMAGE),
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
            {"label_0": pa.nulls(3, pa.float64()), "p_win": pa.array([9, 9, 9], pa.decimal128(3))},
            f"{BAD_LABEL}|missing_label",
        ),
        "word votes": ({"label_0": pa.nulls(3, pa.float64()), "p_win": ["x"] * 3}, BAD_LABEL),
        "struct p_win": ({"p_win": [{"a": 1}] * 3}, BAD_LABEL),
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
            _one_of(Kept(kept), name),
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
    kept = Kept([_sound_pair(number) for number in range(NUM_SOUND)])
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
            lambda cwd, damage=damage: _put(cwd / "t.parquet", damage(whole(cwd))),
            Refused((("t.parquet", "undecodable", "truncated", "malformed"),)),
            source="t.parquet",
        )

    yield file_case(
        "damaged: zeros in an image",
        lambda cwd: _put(cwd / "t.parquet", whole(cwd).replace(image(2)[60:400], bytes(340))),
        Kept([_sound_pair(0), _sound_pair(2)], {"undecodable_image|truncated_image": 1}),
        source="t.parquet",
    )


def at_random(rng: random.Random) -> Case:
    """A jsonl file with several faults at once; the outcomes add up."""
    kind = rng.choice(["chosen", "labelled"])
    pool = CHOSEN if kind == "chosen" else LABELLED
    return _jsonl(pool, rng.sample(pool, rng.randint(2, 5)), kind)
