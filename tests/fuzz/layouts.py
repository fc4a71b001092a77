"""Sources other than jsonl and Pick-a-Pic tables: folders of images, tables of text, saved datasets, archives."""

import csv
import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz.case import Accepted, Case, Either, Expectation, Refused
from tests.fuzz.kept import ANY, MALFORMED, Kept, command, image, pair
from tests.fuzz.world import World

NAMES = ("a", "b", "c")
KEPT = Kept([pair(f"prompt {name}", image(2 * n), image(2 * n + 1)) for n, name in enumerate(NAMES)])
URL = "https://github.com/huggingface/diffusers/issues/3674"


def folder_case(
    name: str,
    write: Callable[[Path], None],
    expect: Expectation,
    *,
    source: str = "data",
    url: str = "",
    **options: object,
) -> Case:
    """A source `data` that `write` fills."""

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.write_recipe(cwd)
        (cwd / "data").mkdir()
        write(cwd / "data")
        return [command(source, **options)]

    return Case(f"layout {name}", make, expect, url)


def win_lose(folder: Path, *, sides: tuple[str, str] = ("win", "lose"), suffix: str = ".txt") -> None:
    """Two folders of equally named images, with captions beside the winners."""
    for offset, side in enumerate(sides):
        (folder / side).mkdir()
        for number, name in enumerate(NAMES):
            (folder / side / f"{name}.png").write_bytes(image(2 * number + offset))
    for name in NAMES:
        (folder / sides[0] / f"{name}{suffix}").write_text(f"prompt {name}\n")


def _then(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Sound folders with one change."""

    def write(folder: Path) -> None:
        win_lose(folder)
        change(folder)

    return write


def _without(name: str, reason: str) -> Kept:
    left = [one for one in KEPT.pairs if one[0] != f"prompt {name}"]
    return Kept(left, {reason: 1})


def fixed() -> list[Case]:
    """All of them."""
    return [*_folders(), *_tables(), *_nothing(), *_others()]


def _folders() -> Iterator[Case]:
    text, win = "utf-8", "win/b.txt"
    changes: dict[str, tuple[Callable[[Path], object], Expectation]] = {
        "as it is": (lambda d: None, KEPT),
        "macOS doubles": (
            lambda d: [(d / s / "._a.png").write_bytes(b"\x00\x05\x16\x07") for s in ("win", "lose")],
            KEPT,
        ),
        "macOS double of a winner": (lambda d: (d / "win" / "._a.png").write_bytes(b"\x00\x05\x16\x07"), KEPT),
        "Thumbs.db and .DS_Store": (
            lambda d: [(d / "win" / n).write_bytes(b"x") for n in ("Thumbs.db", ".DS_Store", "desktop.ini")],
            KEPT,
        ),
        "a hidden folder": (lambda d: (d / "win" / ".cache").mkdir(), KEPT),
        "a folder called x.png": (lambda d: (d / "win" / "x.png").mkdir(), Either((KEPT, Kept(KEPT.pairs, {ANY: 1})))),
        "UTF-8 mark": (lambda d: (d / win).write_text("\ufeffprompt b", text), KEPT),
        "Latin-1": (
            lambda d: (d / win).write_bytes("caf\u00e9".encode("latin-1")),
            Either((_without("b", MALFORMED), Refused(("b.txt",)))),
        ),
        "UTF-16": (
            lambda d: (d / win).write_bytes("prompt b".encode("utf-16")),
            Either((_without("b", MALFORMED), Refused(("b.txt",)), KEPT)),
        ),
        "CRLF": (lambda d: (d / win).write_bytes(b"prompt b\r\n"), KEPT),
        "empty caption": (lambda d: (d / win).write_text(""), _without("b", "empty_caption")),
        "blank caption": (lambda d: (d / win).write_text(" \n\n"), _without("b", "empty_caption")),
        "no caption": (lambda d: (d / win).unlink(), _without("b", "empty_caption")),
        "no loser": (lambda d: (d / "lose/b.png").unlink(), _without("b", "missing_image")),
        "no winner": (lambda d: (d / "win/b.png").unlink(), _without("b", "missing_image")),
        "empty winner": (
            lambda d: (d / "win/b.png").write_bytes(b""),
            _without("b", "missing_image|undecodable_image|truncated_image"),
        ),
        "broken link": (
            lambda d: ((d / "win/b.png").unlink(), (d / "win/b.png").symlink_to("no")),
            _without("b", f"missing_image|{MALFORMED}"),
        ),
        "link that is whole": (
            lambda d: (os.rename(d / "win/b.png", d / "b"), (d / "win/b.png").symlink_to(d / "b")),
            KEPT,
        ),
        "equal images": (lambda d: (d / "lose/b.png").write_bytes(image(2)), _without("b", "identical_images")),
        "suffix in capitals": (lambda d: os.rename(d / "win/b.png", d / "win/b.PNG"), KEPT),
        "two winners of a name": (lambda d: (d / "win/b.jpg").write_bytes(image(50)), Refused(("b.",))),
        "caption that is a folder": (
            lambda d: ((d / win).unlink(), (d / win).mkdir()),
            Either((_without("b", f"empty_caption|{MALFORMED}"), Refused(("b.txt",)))),
        ),
        "caption of 1 MB": (
            lambda d: (d / win).write_text("x " * 500_000),
            Either(
                (
                    Kept(
                        [
                            *[one for one in KEPT.pairs if "b" not in one[0]],
                            pair(("x " * 500_000).strip(), image(2), image(3)),
                        ]
                    ),
                    _without("b", ANY),
                )
            ),
        ),
        "names with spaces": (
            lambda d: [os.rename(d / n, d / n.replace("b", "b b")) for n in ("win/b.png", "lose/b.png", win)],
            KEPT,
        ),
        "lose alone": (lambda d: __import__("shutil").rmtree(d / "win"), Refused(("win",))),
        "empty folders": (lambda d: [p.unlink() for p in d.rglob("*.*")], Refused(("data",))),
        "win is a file": (
            lambda d: (__import__("shutil").rmtree(d / "win"), (d / "win").write_text("x")),
            Refused(("data",)),
        ),
    }
    for name, (change, expect) in changes.items():
        yield folder_case(f"win and lose: {name}", _then(change), expect)
    yield folder_case("chosen and rejected folders", lambda d: win_lose(d, sides=("chosen", "rejected")), KEPT)
    yield folder_case("captions in .caption", lambda d: win_lose(d, suffix=".caption"), KEPT)
    yield from _prompt_files()


def _prompt_files() -> Iterator[Case]:
    def with_file(name: str, content: bytes) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            win_lose(folder)
            for text in (folder / "win").glob("*.txt"):
                text.unlink()
            (folder / name).write_bytes(content)

        return write

    lines = [json.dumps({"file_name": f"{name}.png", "prompt": f"prompt {name}"}) for name in NAMES]
    sound = "\n".join(lines).encode()
    files: dict[str, tuple[str, bytes, Expectation]] = {
        "prompts.jsonl": ("prompts.jsonl", sound, KEPT),
        "win/metadata.jsonl": ("win/metadata.jsonl", sound, KEPT),
        "text for prompt": ("metadata.jsonl", sound.replace(b'prompt"', b'text"'), KEPT),
        "UTF-8 mark": ("metadata.jsonl", b"\xef\xbb\xbf" + sound, KEPT),
        "CRLF": ("metadata.jsonl", sound.replace(b"\n", b"\r\n"), KEPT),
        "blank lines": ("metadata.jsonl", sound.replace(b"\n", b"\n\n") + b"\n\n", KEPT),
        "folder in the names": ("metadata.jsonl", sound.replace(b'"file_name": "', b'"file_name": "win/'), KEPT),
        "backslashes": (
            "metadata.jsonl",
            sound.replace(b'"file_name": "', b'"file_name": "win\\\\'),
            Either((KEPT, Refused(("metadata",)))),
        ),
        "a line missing": ("metadata.jsonl", "\n".join([lines[0], lines[2]]).encode(), _without("b", "empty_caption")),
        "a broken line": ("metadata.jsonl", sound + b"\n{", Refused(("metadata.jsonl",))),
        "an array": ("metadata.jsonl", b"[1]", Refused(("metadata.jsonl",))),
        "null": ("metadata.jsonl", b"null", Refused(("metadata.jsonl",))),
        "number as name": (
            "metadata.jsonl",
            sound + b'\n{"file_name": 5, "prompt": "x"}',
            Refused(("metadata.jsonl",)),
        ),
        "Latin-1": (
            "metadata.jsonl",
            sound.replace(b"prompt b", "caf\u00e9".encode("latin-1")),
            Refused(("metadata.jsonl",)),
        ),
        "prompt null": (
            "metadata.jsonl",
            sound.replace(b'"prompt b"', b"null"),
            Either((_without("b", f"empty_caption|{MALFORMED}"), Refused(("metadata.jsonl",)))),
        ),
        "prompt a list": (
            "metadata.jsonl",
            sound.replace(b'"prompt b"', b'["a"]'),
            Either((_without("b", MALFORMED), Refused(("metadata.jsonl",)))),
        ),
        "empty": ("metadata.jsonl", b"", Refused((("empty_caption", "metadata"),))),
        "deep": ("metadata.jsonl", sound + b"\n" + b"[" * 5000, Refused(("metadata.jsonl",))),
        "a line twice": ("metadata.jsonl", sound + b"\n" + lines[0].encode(), KEPT),
    }
    for name, (file, content, expect) in files.items():
        yield folder_case(f"prompts file: {name}", with_file(file, content), expect, url=URL)


def _images(folder: Path) -> list[dict[str, str]]:
    rows = []
    for number, name in enumerate(NAMES):
        for word, offset in (("w", 0), ("l", 1)):
            (folder / f"{name}_{word}.png").write_bytes(image(2 * number + offset))
        rows.append({"prompt": f"prompt {name}", "chosen": f"{name}_w.png", "rejected": f"{name}_l.png"})
    return rows


def _csv(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _tables() -> Iterator[Case]:
    def table(file: str, text: Callable[[list[dict[str, str]]], str | bytes]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            content = text(_images(folder))
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

        return write

    texts: dict[str, tuple[str, Callable[[list[dict[str, str]]], str | bytes], Expectation]] = {
        "CSV": ("t.csv", _csv, KEPT),
        "CSV with a mark": ("t.csv", lambda rows: b"\xef\xbb\xbf" + _csv(rows).encode(), KEPT),
        "CSV with CRLF": ("t.csv", lambda rows: _csv(rows).replace("\n", "\r\n"), KEPT),
        "TSV": ("t.tsv", lambda rows: _csv(rows, "\t"), KEPT),
        "JSON array": ("t.json", json.dumps, KEPT),
        "JSON of an object": ("t.json", lambda rows: json.dumps({"data": rows}), Either((KEPT, Refused(("t.json",))))),
        "CSV without rows": ("t.csv", lambda rows: "prompt,chosen,rejected\n", Refused(("t.csv",))),
        "CSV without a header": ("t.csv", lambda rows: _csv(rows).partition("\n")[2], Refused((("prompt", "chosen"),))),
        "CSV cut in a quote": (
            "t.csv",
            lambda rows: _csv(rows) + '"open,',
            Either((Kept(KEPT.pairs, {ANY: 1}), Refused(("t.csv",)))),
        ),
        "empty CSV": ("t.csv", lambda rows: "", Refused(("t.csv",))),
        "semicolons": ("t.csv", lambda rows: _csv(rows, ";"), Either((KEPT, Refused(("prompt",))))),
        "CSV in Latin-1": (
            "t.csv",
            lambda rows: _csv([{**rows[0], "prompt": "caf\u00e9"}, *rows[1:]]).encode("latin-1"),
            Either((_without("a", MALFORMED), Refused(("t.csv",)))),
        ),
        "a cell with a newline": (
            "t.csv",
            lambda rows: _csv([{**rows[0], "prompt": "two\nlines"}, *rows[1:]]),
            Kept([pair("two\nlines", image(0), image(1)), *KEPT.pairs[1:]]),
        ),
        "too many cells": (
            "t.csv",
            lambda rows: _csv(rows) + "x,a_w.png,a_l.png,more,still\n",
            Either((Kept(KEPT.pairs, {MALFORMED: 1}), Refused(("t.csv",)))),
        ),
        "too few cells": (
            "t.csv",
            lambda rows: _csv(rows) + "x,a_w.png\n",
            Either((Kept(KEPT.pairs, {f"{MALFORMED}|missing_image": 1}), Refused(("t.csv",)))),
        ),
        "broken JSON": ("t.json", lambda rows: json.dumps(rows)[:-5], Refused(("t.json",))),
        "JSON of texts": ("t.json", lambda rows: '["a", "b"]', Refused((("t.json", "malformed"),))),
        "an empty JSON array": ("t.json", lambda rows: "[]", Refused(("t.json",))),
        "a deep JSON": ("t.json", lambda rows: "[" * 9000, Refused(("t.json",))),
        "YAML": ("t.yaml", lambda rows: "a: 1", Refused(("t.yaml",))),
        "a pickle": ("t.pkl", lambda rows: b"\x80\x04cos\nsystem\n", Refused(("t.pkl",))),
        "XLSX": ("t.xlsx", lambda rows: b"PK\x03\x04", Refused(("t.xlsx",))),
    }
    for name, (file, text, expect) in texts.items():
        yield folder_case(name, table(file, text), expect, source=f"data/{file}")


def _nothing() -> Iterator[Case]:
    """Places where no pairs are."""
    for source in (
        "data",
        "nowhere",
        "nowhere.jsonl",
        "data/x.parquet",
        "/dev/null",
        "/",
        "recipe.yaml",
        "prompts.txt",
        "..",
        "owner/name/x",
        "x" * 300,
        "~nobody/x",
        "./data/",
        "file:///data",
        "a\nb",
    ):
        yield folder_case(
            f"source {source[:30]!r}",
            lambda d: None,
            Refused(((source[:40].strip("./") or "/", source[:40], source.replace("\n", " "), "/x does"),)),
            source=source,
        )
    yield folder_case("a FIFO", lambda d: os.mkfifo(d / "pipe"), Refused(("pipe",)), source="data/pipe")
    yield folder_case(
        "a FIFO as jsonl", lambda d: os.mkfifo(d / "p.jsonl"), Refused(("p.jsonl",)), source="data/p.jsonl"
    )
    yield folder_case("a FIFO in a folder", lambda d: os.mkfifo(d / "p.jsonl"), Refused(("data",)))
    yield folder_case(
        "a FIFO as an image",
        _then(lambda d: ((d / "win/b.png").unlink(), os.mkfifo(d / "win/b.png"))),
        _without("b", f"missing_image|{MALFORMED}"),
    )
    yield folder_case(
        "two jsonl files", lambda d: [(d / n).write_text("{}") for n in ("a.jsonl", "b.jsonl")], Refused(("data",))
    )
    for option, value in (
        ("format", "nope"),
        ("format", "hf"),
        ("split", "nope"),
        ("format", "pickapic"),
        ("format", 5),
        ("split", 5),
    ):
        yield folder_case(
            f"{option}={value}", _then(lambda d: None), Refused(((str(value), option, "data"),)), **{option: value}
        )
    for number in (1, 2, 100):
        yield folder_case(
            f"max_rows={number}", _then(lambda d: None), Accepted() if number < 3 else KEPT, max_rows=number
        )
    yield folder_case(
        "too many defects",
        _then(lambda d: (d / "win/b.txt").unlink()),
        Refused(("empty_caption", "max_dropped_fraction")),
        max_dropped_fraction=0.1,
    )
    yield folder_case("excluded words", _then(lambda d: None), _without("b", "excluded_caption"), exclude_words=["B"])


def _others() -> Iterator[Case]:
    def tar(folder: Path) -> None:
        with tarfile.open(folder / "t.tar", "w") as archive:
            for row in _images(folder):
                stem = row["prompt"][-1]
                for suffix, content in (
                    ("jpg_0.png", (folder / row["chosen"]).read_bytes()),
                    ("jpg_1.png", (folder / row["rejected"]).read_bytes()),
                    ("json", json.dumps({"prompt": row["prompt"], "label_0": 1}).encode()),
                ):
                    info = tarfile.TarInfo(f"{stem}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))

    yield folder_case("a webdataset tar", tar, Either((KEPT, Refused(("t.tar",)))), source="data/t.tar")
    yield folder_case(
        "a cut tar",
        lambda d: (tar(d), (d / "t.tar").write_bytes((d / "t.tar").read_bytes()[:900])),
        Refused((("t.tar", "malformed", "missing"),)),
        source="data/t.tar",
    )
    yield folder_case(
        "a tar that is none", lambda d: (d / "t.tar").write_text("x" * 600), Refused(("t.tar",)), source="data/t.tar"
    )

    def imagefolder(folder: Path) -> None:
        rows = _images(folder)
        lines = [
            json.dumps({"chosen_file_name": r["chosen"], "rejected_file_name": r["rejected"], "prompt": r["prompt"]})
            for r in rows
        ]
        (folder / "metadata.jsonl").write_text("\n".join(lines))

    yield folder_case(
        "datasets' imagefolder",
        imagefolder,
        Either((KEPT, Refused(("data", "chosen")))),
        url="https://huggingface.co/docs/datasets/image_dataset",
    )
    yield folder_case(
        "name_w and name_l",
        lambda d: [(d / f"{r['prompt'][-1]}.txt").write_text(r["prompt"]) for r in _images(d)],
        KEPT,
    )
    for file in ("state.json", "dataset_dict.json", "dataset_info.json"):
        yield folder_case(
            f"a saved dataset of {file} alone", lambda d, file=file: (d / file).write_text("{}"), Refused(("data",))
        )
        yield folder_case(
            f"a saved dataset with broken {file}", lambda d, file=file: (d / file).write_text("{"), Refused(("data",))
        )


def at_random(rng: random.Random) -> Case:
    """Some of the changes to win and lose at once must never end in a traceback."""
    pool = [(d, n) for d in ("win", "lose") for n in NAMES]
    gone = rng.sample(pool, rng.randint(1, 3))
    wreck = rng.choice([b"", b"x", b"\x89PNG\r\n\x1a\n", b"GIF89a", None])
    names = {name for _, name in gone}

    def change(folder: Path) -> None:
        for side, name in gone:
            (folder / side / f"{name}.png").unlink()
            if wreck is not None:
                (folder / side / f"{name}.png").write_bytes(wreck)

    left = [one for one in KEPT.pairs if one[0][-1] not in names]
    # of a name without any picture nothing is left but a caption, which is no pair
    rows = sum(wreck is not None or len([side for side, one in gone if one == name]) == 1 for name in names)
    reasons = {"missing_image|undecodable_image|truncated_image|identical_images": rows} if rows else {}
    expect = Kept(left, reasons) if left else Refused(("image",))
    return folder_case(f"without {sorted(gone)} {wreck!r}", _then(change), expect)
