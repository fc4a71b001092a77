"""Rows of jsonl files and parquet tables: sound ones with a few that are wrong in a known way among them."""

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case, Expectation, Refused
from tests.fuzz.kept import Kept, Pair, command, image, pair
from tests.fuzz.row_faults import CHOSEN, DROP, LABELLED, LINES, LOST, NUM_SOUND, WON, Fault
from tests.fuzz.world import World


def fixed() -> list[Case]:
    """Each fault alone among sound rows, then whole files and tables."""
    found = [_jsonl(CHOSEN, [fault], "chosen") for fault in CHOSEN] + [
        _jsonl(LABELLED, [fault], "labelled") for fault in LABELLED
    ]
    found += [_lines_case([line], reason) for line, reason in LINES]
    return found + list(_whole_files())


def _sound(kind: str, number: int) -> dict[str, Any]:
    names = {"first": f"{number}-a.png", "second": f"{number}-b.png"}
    if kind == "chosen":
        return {"prompt": f"thing {number}", "chosen": names["first"], "rejected": names["second"]}
    return {"caption": f"thing {number}", "image_0": names["first"], "image_1": names["second"], "label_0": 1}


def write_images(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}-a.png").write_bytes(image(2 * number))
        (folder / f"{number}-b.png").write_bytes(image(2 * number + 1))


def sound_pair(number: int, prompt: str | None = None, *, won: bool = True) -> Pair:
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
        write_images(cwd, total)
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
    alternatives: list[tuple[list[Pair], dict[str, int]]] = [([sound_pair(number) for number in range(NUM_SOUND)], {})]
    for number, fault in enumerate(faults, start=NUM_SOUND):
        grown = []
        for outcome in _outcomes(fault.outcome):
            for kept, dropped in alternatives:
                if outcome in (WON, LOST):
                    text = fault.changes.get(prompt, f"thing {number}")
                    grown.append(([*kept, sound_pair(number, text, won=outcome == WON)], dropped))
                else:
                    grown.append((kept, {**dropped, outcome: dropped.get(outcome, 0) + 1}))
        alternatives = grown
    return AnyOf([Kept(kept, dropped) for kept, dropped in alternatives])


def _outcomes(outcome: str) -> list[str]:
    """The alternatives: being kept apart, all reasons as one."""
    parts = outcome.split("|")
    kept, reasons = [one for one in parts if one in (WON, LOST)], [one for one in parts if one not in (WON, LOST)]
    return kept + (["|".join(reasons)] if reasons else [])


@dataclass(frozen=True)
class AnyOf:
    outcomes: Sequence[Kept]

    def complaints(self, results: Any, made: Any) -> list[str]:
        """See `Expectation`: those of the first outcome unless one of them is met."""
        found = [outcome.complaints(results, made) for outcome in self.outcomes]
        return [] if [] in found else found[0]


def _lines_case(lines: Sequence[bytes], reason: str) -> Case:
    def make(cwd: Path, world: World) -> list[list[str]]:
        world.write_recipe(cwd)
        write_images(cwd, NUM_SOUND)
        sound = [json.dumps(_sound("chosen", number)).encode() for number in range(NUM_SOUND)]
        (cwd / "pairs.jsonl").write_bytes(b"\n".join([sound[0], *lines, *sound[1:]]) + b"\n")
        return [command("pairs.jsonl")]

    sound = [sound_pair(number) for number in range(NUM_SOUND)]
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
        write_images(cwd, NUM_SOUND)
        write(cwd)
        return [command(source, **options)]

    return Case(f"{source}: {name}", make, expect, url)


def _whole_files() -> Iterator[Case]:
    sound = [_sound("chosen", number) for number in range(NUM_SOUND)]
    lines = [json.dumps(row) for row in sound]
    all_kept = Kept([sound_pair(number) for number in range(NUM_SOUND)])
    texts: dict[str, tuple[bytes, Expectation]] = {
        "CRLF": ("\r\n".join(lines).encode(), all_kept),
        "blank last line": ("\n".join(lines).encode() + b"\n\n\n", all_kept),
        "blank lines between": ("\n\n".join(lines).encode(), all_kept),
        "UTF-8 mark": (b"\xef\xbb\xbf" + "\n".join(lines).encode(), all_kept),
        "spaces around": ("\n".join(f"  {line}\t" for line in lines).encode(), all_kept),
        "old Mac line ends": ("\r".join(lines).encode(), one_of(all_kept, "pairs.jsonl")),
        "UTF-16": ("\n".join(lines).encode("utf-16"), one_of(all_kept, "pairs.jsonl")),
        "empty": (b"", Refused(("pairs.jsonl",))),
        "blank": (b"\n \n", Refused(("pairs.jsonl",))),
        "binary": (bytes(range(256)) * 4, Refused((("pairs.jsonl", "malformed"),))),
        "JSON array": (json.dumps(sound).encode(), one_of(all_kept, "pairs.jsonl")),
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
        yield file_case(name, lambda cwd, content=content: put(cwd / "pairs.jsonl", content), expect)
    yield from _identities(sound)


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def one_of(kept: Kept, fragment: str) -> Expectation:
    class _KeptOrRefused:
        def complaints(self, results: Any, made: Any) -> list[str]:
            found = kept.complaints(results, made)
            return [] if not found or not Refused((fragment,)).complaints(results, made) else found

    return _KeptOrRefused()


def _identities(sound: list[dict[str, Any]]) -> Iterator[Case]:
    """Ids that people fill with nothing, and orders that hide labels."""
    kept = [sound_pair(number) for number in range(NUM_SOUND)]
    for value in (None, "", math.nan, "nan", "None", "null", " "):
        rows = [{**row, "pair_id": value} for row in sound]
        strict = value is None or value == "" or isinstance(value, float)
        expect = Kept(kept) if strict else AnyOf([Kept(kept), Kept(kept[:1], {"duplicate_pair_id": NUM_SOUND - 1})])
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
        yield _rows_case(f"{left} and {right}", renamed, one_of(Kept(kept), left) if left == "winner" else Kept(kept))
    yield _rows_case(
        "text for prompt",
        [{"text": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]} for row in sound],
        one_of(Kept(kept), "prompt"),
    )


def _rows_case(name: str, rows: Iterable[dict[str, Any]], expect: Expectation, url: str = "") -> Case:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return file_case(name, lambda cwd: put(cwd / "pairs.jsonl", content), expect, url=url)


def at_random(rng: random.Random) -> Case:
    """A jsonl file with several faults at once; the outcomes add up."""
    kind = rng.choice(["chosen", "labelled"])
    pool = CHOSEN if kind == "chosen" else LABELLED
    return _jsonl(pool, rng.sample(pool, rng.randint(2, 5)), kind)
