"""A small sample of every published layout, made to its schema (sources: docs/data.md), and what is read of it."""

import base64
import csv
import io
import json
import math
import os
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from smpo.core.errors import DataError
from smpo.data.formats import detect_format, open_source
from smpo.data.records import PairSource, RawPair
from smpo.preparation.options import PairOptions
from smpo.preparation.pairs import prepare_pairs
from smpo.preparation.row_checks import check_pair
from tests.data.pictures import png, write_jsonl, write_parquet

A, B, C = png(0), png(1), png(2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images a.png, b.png and c.png, in the folder and in images/."""
    (tmp_path / "images").mkdir()
    for place in (tmp_path, tmp_path / "images"):
        for name, data in (("a", A), ("b", B), ("c", C)):
            (place / f"{name}.png").write_bytes(data)
    return tmp_path


def opened(path: Path, **options: Any) -> PairSource:
    return open_source(str(path), format=detect_format(str(path))[0], **options)


def read(path: Path, **options: Any) -> list[RawPair]:
    source = opened(path, **options)
    return list(source.read(range(len(source))))


def content(pair: RawPair) -> tuple:
    """(prompt, images, label or None, share of votes); a broken row's reason instead."""
    if pair.problem:
        return pair.problem
    label = None if math.isnan(pair.label_0) else pair.label_0
    return pair.caption, pair.image_0, pair.image_1, label, pair.vote_share_0


def saved(folder: Path, rows: list[dict], images: tuple[str, ...] = ()) -> Path:
    data = datasets.Dataset.from_list(rows)
    for name in images:
        data = data.cast_column(name, datasets.Image())
    data.save_to_disk(str(folder / "saved"))
    return folder / "saved"


TABLE_ROWS = {
    "TRL": ({"prompt": "x", "chosen": "a.png", "rejected": "b.png"}, 1.0, None),
    "preferred and rejected images": ({"prompt": "x", "preferred_image": "a.png", "rejected_image": "b.png"},
                                      1.0, None),
    "winner and loser images": ({"caption": "x", "image_w": "a.png", "image_l": "b.png"}, 1.0, None),
    "Pick-a-Pic": ({"caption": "x", "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 0, "label_1": 1}, 0.0, None),
    "pairs": ({"prompt": "x", "image_0": "a.png", "image_1": "b.png", "preferred": "1"}, 0.0, None),
    "ImageReward pairs": ({"prompt": "x", "img_better": "a.png", "img_worse": "b.png"}, 1.0, None),
    "HPDv3": ({"prompt": "x", "model1": "m", "model2": "n", "path1": "images/a.png", "path2": "images/b.png",
               "confidence": 0.9, "choice_dist": [9, 1]}, 1.0, None),
    "Rapidata": ({"prompt": "x", "image1": "a.png", "image2": "b.png", "votes_image1": 6, "votes_image2": 18,
                  "model1": "m", "model2": "n", "detailed_results": "[]", "image1_path": "elsewhere"}, None, 0.25),
}


@pytest.mark.parametrize("container", ["jsonl", "json", "csv", "tsv", "parquet", "hf"])
@pytest.mark.parametrize("name", TABLE_ROWS)
def test_any_layout_in_any_table(folder: Path, name: str, container: str):
    row, label, share = TABLE_ROWS[name]
    options: dict[str, Any] = {}
    if container == "jsonl":
        place = write_jsonl(folder / "t.jsonl", [row])
    elif container == "json":
        place = folder / "t.json"
        place.write_text(json.dumps([row]))
    elif container in ("csv", "tsv"):
        place = folder / f"t.{container}"
        with open(place, "w", newline="") as stream:
            writer = csv.writer(stream, delimiter="," if container == "csv" else "\t")
            writer.writerows([row.keys(), row.values()])
    elif container == "parquet":
        place = write_parquet(folder / "t.parquet", [row])
    else:
        place, options = saved(folder, [row]), {"image_root": str(folder)}
    source = opened(place, **options)
    assert [content(pair) for pair in source.read(range(1))] == [("x", A, B, label, share)]
    assert source.describe().startswith(f"{name}: ") and source.has_labels and len(source) == 1


def test_trl_of_embedded_images_in_parquet_and_saved_datasets(folder: Path):
    """TRL's prompt may be a conversation; datasets' Image is {"bytes": ..., "path": ...}."""
    rows = [{"prompt": [{"role": "user", "content": "x"}], "chosen": {"bytes": A, "path": None},
             "rejected": {"bytes": None, "path": "b.png"}, "score": 1.0, "b": 1, "c": 2}]
    source = opened(write_parquet(folder / "t.parquet", rows))
    assert content(next(iter(source.read(range(1))))) == ("x", A, B, 1.0, None)
    assert source.describe() == "TRL: prompt, chosen, rejected; 3 columns ignored (score, b, c)"
    place = saved(folder, [{"prompt": "x", "chosen": A, "rejected": B}], images=("chosen", "rejected"))
    assert [content(pair) for pair in read(place)] == [("x", A, B, 1.0, None)]


def test_a_list_of_two_images(folder: Path):
    place = write_jsonl(folder / "t.jsonl", [{"prompt": "x", "images": ["a.png", "b.png"], "label_0": 0}])
    assert [content(pair) for pair in read(place)] == [("x", A, B, 0.0, None)]


def test_rapidata_weighted_results(folder: Path):
    row = {"prompt": "x", "image1": "a.png", "image2": "b.png", "weighted_results_image1_preference": 0.7,
           "weighted_results_image2_preference": 0.3}
    assert read(write_jsonl(folder / "t.jsonl", [row]))[0].vote_share_0 == pytest.approx(0.7)


def test_hpdv2_train(folder: Path):
    """human_preference: 1 for the preferred path."""
    rows = [{"human_preference": [0, 1], "prompt": "x", "file_path": ["a.png", "b.png"]},
            {"human_preference": [1, 0, 0], "prompt": "y", "file_path": ["a.png", "b.png"]}]
    (folder / "train.json").write_text(json.dumps(rows))
    pairs = read(folder / "train.json", image_root=str(folder / "images"))
    assert content(pairs[0]) == ("x", A, B, 0.0, None)
    assert pairs[1].problem == ("malformed_row", "human_preference is [1, 0, 0], expected a list of 2 numbers, one an "
                                "image")


def test_hpdv2_test(folder: Path):
    """rank 1 is the best; equal ranks are ties. 3 images are 3 pairs."""
    rows = [{"prompt": "x", "image_path": ["a.png", "b.png", "c.png"], "rank": [2, 1, 2],
             "raw_annotations": [{"rank": [2, 1, 3], "user_hash": "u"}]}]
    (folder / "test.json").write_text(json.dumps(rows))
    assert [content(pair) for pair in read(folder / "test.json")] == [
        ("x", A, B, 0.0, None), ("x", A, C, 0.5, None), ("x", B, C, 1.0, None)]
    assert opened(folder / "test.json").describe() == "HPDv2: prompt, paths, rank or human_preference"


@pytest.mark.parametrize("container", ["json", "parquet"])
def test_imagerewarddb(folder: Path, container: str):
    """An image a row; rank within its prompt_id, 1 = best."""
    rows = [{"image_path": f"images/{name}.png", "prompt_id": prompt, "prompt": f"prompt {prompt}",
             "classification": "People", "image_amount_in_total": 3, "rank": rank, "overall_rating": 4}
            for name, prompt, rank in (("a", "1", 2), ("b", "1", 1), ("c", "2", 1), ("a", "2", 1))]
    place = folder / f"metadata-train.{container}"
    if container == "json":
        place.write_text(json.dumps([*rows, {"prompt_id": None, "rank": 3, "prompt": "z", "image_path": "a.png"}]))
    else:
        write_parquet(place, rows)
    pairs = [content(pair) for pair in read(place)]
    assert pairs[-2:] == [("prompt 1", A, B, 0.0, None), ("prompt 2", C, A, 0.5, None)]
    assert len(pairs) == (3 if container == "json" else 2)


def task(choices: list[str], **data: str) -> dict:
    """A task of Label Studio's JSON export."""
    return {"id": 7, "data": data, "annotations": [
        {"id": number, "was_cancelled": False, "result": [
            {"id": "r", "type": "pairwise", "from_name": "pw", "to_name": "image1", "value": {"selected": choice}}]}
        for number, choice in enumerate(choices)]}


def test_label_studio(folder: Path):
    """One annotator's choice is a label, several are votes; paths of its local files lose their prefix."""
    images = {"image1": "/data/local-files/?d=images/a.png", "image2": "/data/images/b.png"}
    tasks = [task(["left"], prompt="x", **images), task(["left", "right", "right"], prompt="y", **images),
             task([], prompt="z", **images), task(["up"], prompt="w", **images), {"data": 3, "annotations": None}]
    (folder / "export.json").write_text(json.dumps(tasks))
    assert [content(pair) for pair in read(folder / "export.json")[:3]] == [
        ("x", A, B, 1.0, None), ("y", A, B, None, 1 / 3), ("z", A, B, None, None)]
    assert [pair.problem for pair in read(folder / "export.json")[3:]] == [
        ("malformed_row", "a choice is 'up', expected left or right"),
        ("malformed_row", "data is 3, expected an object, and annotations a list")]


@pytest.mark.parametrize("table", ["csv", "jsonl", "parquet"])
def test_imagefolder(folder: Path, table: str):
    """datasets' imagefolder: metadata.*, and *_file_name columns."""
    row = {"chosen_file_name": "images/a.png", "rejected_file_name": "images/b.png", "text": "x"}
    if table == "csv":
        (folder / "metadata.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    elif table == "jsonl":
        write_jsonl(folder / "metadata.jsonl", [row])
    else:
        write_parquet(folder / "metadata.parquet", [row])
    assert [content(pair) for pair in read(folder)] == [("x", A, B, 1.0, None)]
    assert detect_format(str(folder))[1] == f"a folder with metadata.{table}"


@pytest.mark.parametrize("sides", [("win", "lose"), ("chosen", "rejected"), ("w", "l"), ("W", "L"),
                                   ("preferred", "rejected")])
def test_folders_of_other_names(tmp_path: Path, sides: tuple[str, str]):
    for side, data in zip(sides, (A, B), strict=True):
        (tmp_path / side).mkdir()
        (tmp_path / side / "0.png").write_bytes(data)
        (tmp_path / side / "._0.png").write_bytes(b"macOS")
        (tmp_path / side / ".DS_Store").write_bytes(b"macOS")
        (tmp_path / side / "Thumbs.db").write_bytes(b"Windows")
    (tmp_path / sides[0] / "0.caption").write_bytes("\ufeffx \r\n".encode())
    assert [content(pair) for pair in read(tmp_path)] == [("x", A, B, 1.0, None)]


@pytest.mark.parametrize("ends", [("_w", "_l"), ("_win", "_lose"), ("_chosen", "_rejected")])
def test_names_in_pairs(tmp_path: Path, ends: tuple[str, str]):
    for end, data in zip(ends, (A, B), strict=True):
        (tmp_path / f"cat{end}.PNG").write_bytes(data)
    (tmp_path / f"dog{ends[0]}.png").write_bytes(C)
    (tmp_path / f"cat{ends[0]}.txt").write_text("x")
    pairs = read(tmp_path)
    assert content(pairs[0]) == ("x", A, B, 1.0, None) and pairs[0].pair_id == "cat"
    assert pairs[1].problem == ("missing_image", f"no image dog{ends[1]}.*")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def test_webdataset(tmp_path: Path):
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for name, data in (("s/0.chosen.png", A), ("s/0.rejected.png", B), ("s/0.json", b'{"prompt": "x"}'),
                           ("s/._0.png", b"macOS"), ("s/1.chosen.png", A), ("s/1.rejected.png", C), ("s/1.txt", b"y\n"),
                           ("s/2.chosen.png", A), ("s/2.txt", b"y"), ("s/3.chosen.png", A), ("s/3.rejected.png", C),
                           ("s/3.json", b"{")):
            add(archive, name, data)
        link = tarfile.TarInfo("s/4.chosen.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with tarfile.open(tmp_path / "00001.tar", "w") as archive:
        for name, data in (("0.0.jpg", A), ("0.1.jpg", B), ("0.json", b'{"caption": "z", "label_0": 0}')):
            add(archive, name, data)
    pairs = read(tmp_path)
    assert [content(pair) for pair in (pairs[0], pairs[1], pairs[4])] == [
        ("x", A, B, 1.0, None), ("y", A, C, 1.0, None), ("z", A, B, 0.0, None)]
    assert [pair.problem[0] for pair in pairs[2:4]] == ["malformed_row"] * 2
    assert pairs[3].place == "00000.tar sample 's/3'"
    (tmp_path / "00001.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(DataError, match="00001.tar is no readable .tar file"):
        read(tmp_path)


def test_images_in_the_row_itself(tmp_path: Path):
    """A data URI, and base64 alone, in any table."""
    text = base64.b64encode(A).decode()
    rows = [{"prompt": "x", "chosen": f"data:image/png;base64,{text}", "rejected": base64.b64encode(B).decode()}]
    assert [content(pair) for pair in read(write_jsonl(tmp_path / "t.jsonl", rows))] == [("x", A, B, 1.0, None)]


def test_backslashes_separate_folders_too(folder: Path):
    place = write_jsonl(folder / "t.jsonl", [{"prompt": "x", "chosen": "images\\a.png", "rejected": "images/b.png"}])
    assert content(read(place)[0]) == ("x", A, B, 1.0, None)


@pytest.mark.parametrize(("path", "reason"), [
    ("/etc/passwd", "undecodable_image"), ("../../../../../../../../etc/passwd", "undecodable_image"),
    ("/dev/zero", "missing_image"), ("pipe", "missing_image"), ("images", "missing_image"),
    ("x" * 300, "malformed_row"),
    ("x" * 5000, "malformed_row"), ("a\0b", "malformed_row")])
def test_what_is_no_image_gets_no_further(folder: Path, path: str, reason: str):
    os.mkfifo(folder / "pipe")
    place = write_jsonl(folder / "t.jsonl", [{"prompt": "x", "chosen": "a.png", "rejected": path}])
    assert check_pair(read(place)[0], PairOptions()).reason == reason


def test_columns_are_renamed(folder: Path):
    place = write_jsonl(folder / "t.jsonl", [{"my_text": "x", "good": "a.png", "bad": "b.png", "prompt": "not this"}])
    names = {"prompt": "my_text", "chosen": "good", "rejected": "bad"}
    source = opened(place, columns=names)
    assert content(next(iter(source.read(range(1))))) == ("x", A, B, 1.0, None)
    assert source.describe() == "TRL: my_text, good, bad; 1 column ignored (prompt)"
    with pytest.raises(DataError, match=r"has no column 'my_txt', which data.columns names as prompt; found: my_text, "
                                        r"good, bad, prompt. Did you mean 'my_text'\?"):
        opened(place, columns=names | {"prompt": "my_txt"})
    with pytest.raises(ValidationError, match="unknown field in data.columns 'chosn'; known: prompt, .* Did you mean"):
        PairOptions(columns={"chosn": "good"})
    report = prepare_pairs(str(place), folder / "pairs", options=PairOptions(columns=names))
    assert report.layout == "TRL: my_text, good, bad; 1 column ignored (prompt)" and report.kept == 1


@pytest.mark.parametrize("container", ["parquet", "hf"])
def test_columns_are_renamed_in_typed_tables(folder: Path, container: str):
    rows = [{"my_text": "x", "good": A, "bad": B}]
    place = write_parquet(folder / "t.parquet", rows) if container == "parquet" else saved(folder, rows)
    names = {"prompt": "my_text", "image_0": "good", "image_1": "bad"}
    assert content(read(place, columns=names)[0]) == ("x", A, B, None, None)


@pytest.mark.parametrize("container", ["jsonl", "parquet", "hf", "tar", "list"])
def test_the_old_name_of_the_vote_share_is_refused_with_the_new_one(folder: Path, container: str):
    """smpo 0.1 called it p_win; `data.columns` still reads it."""
    if container == "tar":
        place = folder / "t.tar"
        with tarfile.open(place, "w") as archive:
            values = b'{"prompt": "x", "p_win": 0.7}'
            for name, data in (("0.image_0.png", A), ("0.image_1.png", B), ("0.json", values)):
                add(archive, name, data)
    elif container in ("parquet", "hf"):
        rows = [{"prompt": "x", "image_0": A, "image_1": B, "p_win": 0.7}]
        place = write_parquet(folder / "t.parquet", rows) if container == "parquet" else saved(folder, rows)
    else:
        images = {"images": ["a.png", "b.png"]} if container == "list" else {"image_0": "a.png", "image_1": "b.png"}
        place = write_jsonl(folder / "t.jsonl", [{"prompt": "x", **images, "p_win": 0.7}])
    with pytest.raises(DataError) as error:
        opened(place)
    assert str(error.value) == (f"{place} has a column 'p_win', whose name is vote_share_0 since smpo 0.2; rename it, "
                                "or set data.columns={vote_share_0: p_win}")
    assert [content(pair) for pair in read(place, columns={"vote_share_0": "p_win"})] == [("x", A, B, None, 0.7)]


def test_the_old_key_of_data_columns_is_refused_with_the_new_one():
    with pytest.raises(ValidationError, match="data.columns.p_win: its name is vote_share_0 since smpo 0.2; rename"):
        PairOptions(columns={"p_win": "share"})


def test_a_renamed_column_that_no_sample_has_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for name, data in (("0.chosen.png", A), ("0.rejected.png", B), ("0.txt", b"x")):
            add(archive, name, data)
    with pytest.raises(DataError, match="t.tar has no column 'my_text', which data.columns names as prompt; found: "):
        opened(tmp_path / "t.tar", columns={"prompt": "my_text"})


def test_labels_are_looked_for_in_all_rows(folder: Path):
    rows = [{"prompt": "x", "image_0": "a.png", "image_1": "b.png"},
            {"prompt": "x", "image_0": "a.png", "image_1": "b.png", "label_0": 1}]
    assert opened(write_jsonl(folder / "t.jsonl", rows)).has_labels
    assert not opened(write_jsonl(folder / "u.jsonl", rows[:1])).has_labels


def test_only_needed_columns_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    original = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda self, *args, **options: (
        asked.append(options["columns"]), original(self, *args, **options))[1])
    table = pa.table({"prompt": ["x"], "chosen": [A], "rejected": [B], "huge": [b"0" * 100]})
    pq.write_table(table, folder / "t.parquet")
    assert read(folder / "t.parquet")[0].caption == "x" and asked == [["prompt", "chosen", "rejected"]]
