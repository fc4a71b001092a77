"""The formats: each reads real files to the same raw pairs, and refuses what it cannot read in one line."""

import math
import sys
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from smpo.core.errors import ConfigError, DataError
from smpo.data import FORMATS
from smpo.data.formats import ACCEPTED, detect_format, open_source
from smpo.data.images import content_uid
from tests.data.pictures import good_row, png, write_folders, write_jsonl, write_parquet

ROWS = [good_row(index) for index in range(10)]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Ten rows in two shards of six and four rows, in row groups of two."""
    write_parquet(tmp_path / "shards" / "train-00000-of-00002.parquet", ROWS[:6], row_group_size=2)
    write_parquet(tmp_path / "shards" / "train-00001-of-00002.parquet", ROWS[6:], row_group_size=2)
    return tmp_path / "shards"


def message(source: Path | str, **settings) -> str:
    """The error of opening `source`, with the path taken out."""
    with pytest.raises(DataError) as caught:
        open_source(str(source), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_format_resolves():
    assert all(FORMATS.resolve(name) for name in FORMATS)


def test_parquet_rows(shards: Path):
    source = open_source(str(shards), format="parquet")
    pairs = list(source.read(range(len(source))))
    assert [pair.row for pair in pairs] == list(range(10))
    assert [pair.pair_id for pair in pairs] == [str(1000 + index) for index in range(10)]
    assert pairs[7].caption == "a picture of thing 1"
    assert (pairs[7].image_0, pairs[7].image_1) == (png(14), png(15, (16, 22)))
    assert (pairs[7].label_0, pairs[7].uid_0) == (1.0, content_uid(png(14)))  # the source's own uid is not read
    assert pairs[7].place == "train-00001-of-00002.parquet row 2"


def test_parquet_chosen_rows(shards: Path):
    source = open_source(str(shards), format="parquet")
    assert [pair.row for pair in source.read([1, 5, 6, 9])] == [1, 5, 6, 9]
    assert [pair.row for pair in source.read(range(3, 8))] == [3, 4, 5, 6, 7]
    assert list(source.read(range(0))) == []


def test_parquet_skips_row_groups(shards: Path, monkeypatch: pytest.MonkeyPatch):
    """Rows 5 to 7 lie in group 2 of shard 0 and group 0 of shard 1; nothing else may be opened."""
    read = []
    original = pq.ParquetFile.iter_batches

    def recorded(self, *args, row_groups, columns, **options):
        read.append((row_groups, columns))
        return original(self, *args, row_groups=row_groups, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", recorded)
    list(open_source(str(shards), format="parquet").read(range(5, 8)))
    assert [groups for groups, _ in read] == [[2], [0]]
    assert "model_0" not in read[0][1]


def test_parquet_without_uids_or_ids(tmp_path: Path):
    row = {name: ROWS[0][name] for name in ("caption", "jpg_0", "jpg_1")}
    file = write_parquet(tmp_path / "plain.parquet", [row])
    source = open_source(str(file), format="parquet")
    pair = next(iter(source.read(range(1))))
    assert not source.has_labels
    assert math.isnan(pair.label_0)
    assert (pair.pair_id, pair.uid_0) == ("row-0", content_uid(row["jpg_0"]))


def test_parquet_has_label_false_is_unlabelled(tmp_path: Path):
    file = write_parquet(tmp_path / "a.parquet", [{**ROWS[0], "has_label": False}, {**ROWS[1], "has_label": True}])
    labels = [pair.label_0 for pair in open_source(str(file), format="parquet").read(range(2))]
    assert math.isnan(labels[0]) and labels[1] == 1.0


VOTED = [{"vote_share_0": 0.8}, {"votes_0": 1, "votes_1": 3}, {"votes_0": 0, "votes_1": 0},
         {"vote_share_0": 0.5, "votes_0": 9}]
SHARES = [0.8, 0.25, None, 0.5]


@pytest.mark.parametrize("format", ["parquet", "jsonl", "hf"])
def test_votes_are_shares_in_every_format_with_columns(tmp_path: Path, format: str):
    """Given as vote_share_0, which goes first, or as counts, 1 of 4; zero votes are none."""
    rows = [{name: value for name, value in ROWS[i].items() if name != "label_0"} | VOTED[i] for i in range(4)]
    if format == "parquet":
        place = write_parquet(tmp_path / "a.parquet", [{**dict.fromkeys(("vote_share_0", "votes_0", "votes_1")), **row}
                                                       for row in rows])
    elif format == "hf":
        place = tmp_path / "saved"
        datasets.Dataset.from_list([{**dict.fromkeys(("vote_share_0", "votes_0", "votes_1")), **row} for row in rows]
                                   ).save_to_disk(str(place))
    else:
        for name in ("a.png", "b.png"):
            (tmp_path / name).write_bytes(png(len(name)))
        place = write_jsonl(tmp_path / "p.jsonl", [
            {"prompt": "x", "image_0": "a.png", "image_1": "b.png", **votes} for votes in VOTED])
    source = open_source(str(place), format=format)
    pairs = list(source.read(range(4)))
    assert source.has_labels
    assert [pair.vote_share_0 for pair in pairs] == SHARES
    assert [pair.human_label for pair in pairs[:2]] == [1.0, 0.0]
    assert math.isnan(pairs[2].human_label) and pairs[3].human_label == 0.5


def test_one_persons_label_stands_beside_the_votes(tmp_path: Path):
    file = write_parquet(tmp_path / "a.parquet", [{**ROWS[0], "vote_share_0": 0.9}])
    pair = next(iter(open_source(str(file), format="parquet").read(range(1))))
    assert (pair.label_0, pair.human_label, pair.vote_share_0) == (0.0, 0.0, 0.9)


def test_parquet_empty_image_is_a_problem(tmp_path: Path):
    file = write_parquet(tmp_path / "a.parquet", [ROWS[0], {**ROWS[1], "jpg_1": None}])
    pair = list(open_source(str(file), format="parquet").read(range(2)))[1]
    assert pair.problem == ("missing_image", "jpg_1 is empty")


def test_parquet_splits(tmp_path: Path):
    for split, rows in (("train", ROWS[:3]), ("test", ROWS[3:5])):
        write_parquet(tmp_path / "s" / f"{split}-00000-of-00001.parquet", rows)
    assert len(open_source(str(tmp_path / "s"), format="parquet", split="test")) == 2
    folder = tmp_path / "s"
    assert message(folder, format="parquet") == f"{folder} holds the splits test, train; choose one with split"
    assert message(folder, format="parquet", split="val") == f"{folder} has no split 'val'; its splits: test, train"


def test_parquet_missing_columns(tmp_path: Path):
    rows = [{"captions": "x", "jpg_0": b"1", "image_1": b"2"}]
    file = write_parquet(tmp_path / "a.parquet", rows)
    assert message(file, format="parquet") == (
        f"{file} has no layout that is known; found: captions, jpg_0, image_1; nearest: Pick-a-Pic (caption, jpg_0, "
        "jpg_1), lacks caption, jpg_1. Did you mean 'captions'? Did you mean 'image_1'? Rename with data.columns, e.g. "
        "data.columns={prompt: your_column}; the layouts: docs/data.md")


def test_parquet_unreadable(tmp_path: Path):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1 but not really")
    assert message(file, format="parquet").startswith(f"{file} is not a readable parquet file (")


def test_parquet_cut_short(tmp_path: Path):
    """A download that stopped: the footer at the end is missing."""
    file = write_parquet(tmp_path / "a.parquet", ROWS)
    file.write_bytes(file.read_bytes()[:-1000])
    assert message(file, format="parquet").endswith("; download it again")


@pytest.mark.parametrize("feature", ["binary", "image"])
def test_saved_dataset(tmp_path: Path, feature: str):
    data = datasets.Dataset.from_list(ROWS)
    if feature == "image":
        data = data.cast_column("jpg_0", datasets.Image()).cast_column("jpg_1", datasets.Image())
    data.save_to_disk(str(tmp_path / "saved"))
    source = open_source(str(tmp_path / "saved"), format="hf")
    assert source.has_labels and len(source) == 10
    pairs = list(source.read([2, 3, 9]))
    assert [(pair.row, pair.pair_id) for pair in pairs] == [(2, "1002"), (3, "1003"), (9, "1009")]
    assert pairs[2].image_0 == png(18)


def test_saved_dataset_splits(tmp_path: Path):
    parts = {"train": datasets.Dataset.from_list(ROWS[:4]), "test": datasets.Dataset.from_list(ROWS[4:6])}
    folder = tmp_path / "saved"
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    assert len(open_source(str(folder), format="hf", split="test")) == 2
    assert message(folder, format="hf") == f"{folder} holds the splits train, test; choose one with split"
    assert message(folder, format="hf", split="val") == (
        f"{folder} holds the splits train, test; there is no split 'val'")


def test_hub_id_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*args, **options):
        raise ConnectionError("Couldn't reach the hub\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert message("nobody/nothing", format="hf") == (
        "'nobody/nothing' is neither a saved dataset nor one the hub delivers (Couldn't reach the hub); "
        "correct the path, id or split")


def test_datasets_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.delitem(sys.modules, "smpo.data.huggingface", raising=False)
    assert message("owner/name", format="hf") == (
        "format hf needs the package datasets, not installed; pip install 'smpo[hf]'")


def test_jsonl_of_pairs(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "b.png").write_bytes(png(1))
    file = write_jsonl(tmp_path / "pairs.jsonl", [
        {"prompt": "one", "image_0": "a.png", "image_1": "b.png", "label_0": 0.5, "pair_id": "p"},
        {"caption": "two", "image_0": "a.png", "image_1": "b.png", "preferred": 1},
        {"prompt": "three", "chosen": "b.png", "rejected": "a.png"},
        {"prompt": "four", "image_0": "a.png", "image_1": "gone.png"},
        {"prompt": "five", "image_0": "a.png", "image_1": "b.png", "label_0": "yes"},
    ])
    file.write_text(file.read_text() + "\n{broken\n[1]\n")
    pairs = list(open_source(str(file), format="jsonl").read(range(7)))
    assert [pair.caption for pair in pairs[:3]] == ["one", "two", "three"]
    assert [pair.label_0 for pair in pairs[:3]] == [0.5, 0.0, 1.0]
    assert (pairs[0].pair_id, pairs[1].pair_id) == ("p", "row-1")
    assert (pairs[2].image_0, pairs[2].uid_1) == (png(1), content_uid(png(0)))
    assert [pair.problem[0] for pair in pairs[3:]] == ["missing_image", *["malformed_row"] * 3]
    assert pairs[3].problem[1] == (f"image_1: 'gone.png' does not exist in {tmp_path}; set data.image_root to the "
                                   "folder that the paths start from")
    assert pairs[5].place == "pairs.jsonl line 7"


@pytest.mark.parametrize(("row", "expected"), [
    ({"prompt": "x", "image_0": "a", "imag_1": "b"}, "nearest: pairs (prompt, image_0, image_1), lacks image_1. "
     "Did you mean 'imag_1'? Rename with data.columns, e.g. data.columns={image_1: your_column}; the layouts: "
     "docs/data.md"),
    ({"words": "x", "chosen": "a", "rejected": "b"}, "nearest: TRL (prompt, chosen, rejected), lacks prompt. "
     "Rename with data.columns, e.g. data.columns={prompt: your_column}; the layouts: docs/data.md"),
])
def test_a_table_without_a_layout_hears_of_the_nearest_one(tmp_path: Path, row: dict, expected: str):
    file = write_jsonl(tmp_path / "pairs.jsonl", [row])
    text = message(file, format="jsonl")
    assert text.startswith(f"{file} has no layout that is known; found: {', '.join(row)}; {expected}"), text


def test_jsonl_empty_and_absent(tmp_path: Path):
    file = write_jsonl(tmp_path / "pairs.jsonl", [])
    assert message(file, format="jsonl") == f"{file} holds no rows; correct the path or split"
    assert message(tmp_path / "no.jsonl", format="jsonl") == f"{tmp_path / 'no.jsonl'} does not exist; correct the path"


def test_folders(tmp_path: Path):
    root = write_folders(tmp_path / "f", ["a", "b", "c"])
    (root / "lose" / "b.png").unlink()
    (root / "win" / "c.txt").unlink()
    write_jsonl(root / "metadata.jsonl", [{"file_name": "c.png", "text": "from the list"}])
    pairs = list(open_source(str(root), format="folders").read(range(3)))
    assert [pair.pair_id for pair in pairs] == ["a", "b", "c"]
    assert (pairs[0].caption, pairs[0].label_0) == ("prompt of a", 1.0)
    assert (pairs[0].image_0, pairs[0].image_1) == (png(0), png(100))
    assert pairs[1].problem == ("missing_image", "no image lose/b.*")
    assert pairs[2].caption == "from the list"


def test_folders_errors(tmp_path: Path):
    root = tmp_path / "f"
    (root / "win").mkdir(parents=True)
    assert message(root, format="folders") == (
        f"{root} has no two sub-folders of images (win/ and lose/, chosen/ and rejected/, w/ and l/, winner/ and "
        "loser/, preferred/ and rejected/) and no images in pairs by the ends of their names (_w.png and _l.png, "
        "_win.png and _lose.png, _chosen.png and _rejected.png, _winner.png and _loser.png)")
    (root / "lose").mkdir()
    assert message(root, format="folders").startswith(f"{root} holds no images in win/ and lose/; accepted: .png .jpg")
    (root / "win" / "a.png").write_bytes(png(0))
    (root / "win" / "a.jpg").write_bytes(png(0))
    assert message(root, format="folders") == (
        f"{root / 'win/a.jpg'} and {root / 'win/a.png'} have one name; pairs are matched by it, so rename one")


def test_folders_bad_prompt_file(tmp_path: Path):
    root = write_folders(tmp_path / "f", ["a"])
    (root / "win" / "a.txt").unlink()
    (root / "prompts.jsonl").write_text('{"file": "a.png"}\n')
    with pytest.raises(DataError) as caught:
        list(open_source(str(root), format="folders").read(range(1)))
    assert str(caught.value) == (
        f'{root / "prompts.jsonl"} line 1 must be {{"file_name": ..., "prompt": ...}}; correct it')


def test_detection(tmp_path: Path, shards: Path):
    file = write_jsonl(tmp_path / "j" / "pairs.jsonl", [{}])
    folders = write_folders(tmp_path / "f", ["a"])
    datasets.Dataset.from_list(ROWS[:2]).save_to_disk(str(tmp_path / "h"))
    formats = {detect_format(str(path)) for path in (shards, shards / "train-00000-of-00002.parquet")}
    assert formats == {("parquet", "a folder with .parquet files"), ("parquet", "a .parquet file")}
    assert detect_format(str(file)) == ("jsonl", "a .jsonl file")
    assert detect_format(str(file.parent)) == ("jsonl", "a folder with one .jsonl file")
    assert detect_format(str(folders)) == ("folders", "a folder with win/ and lose/")
    assert detect_format(str(tmp_path / "h")) == ("hf", "a folder written by save_to_disk")
    assert detect_format("yuvalkirstain/pickapic_v2") == ("hf", "no such path, so a hub id")


def test_undetectable(tmp_path: Path):
    (tmp_path / "data.xlsx").write_text("a,b\n")
    (tmp_path / "empty").mkdir()
    for name, start in (("data.xlsx", "cannot tell the format of {}"), ("empty", "cannot tell the format of {}"),
                        ("absent", "{} does not exist")):
        with pytest.raises(DataError) as caught:
            detect_format(str(tmp_path / name))
        assert str(caught.value) == f"{start.format(tmp_path / name)}; accepted: {ACCEPTED}"


def test_unknown_format():
    with pytest.raises(ConfigError) as caught:
        open_source("x", format="parket")
    assert str(caught.value) == (
        "unknown data.format 'parket'; known: parquet, hf, jsonl, csv, tsv, json, metadata, folders, tar. "
        "Did you mean 'parquet'?")


def test_tables_and_folders_have_no_splits(tmp_path: Path):
    root = write_folders(tmp_path / "f", ["a"])
    assert message(root, format="folders", split="x") == (
        "format folders has no splits, got split 'x'; use one folder per split")
    file = write_jsonl(tmp_path / "p.jsonl", [{}])
    assert message(file, format="jsonl", split="x") == (
        "format jsonl has no splits, got split 'x'; use one file per split")


@pytest.mark.parametrize("format", ["parquet", "jsonl", "folders", "hf"])
def test_fingerprint_follows_the_files(tmp_path: Path, format: str):
    """The same files give the same digest, a changed image another one."""
    def make(root: Path, first: int) -> Path:
        if format == "folders":
            write_folders(root, ["a"])
            (root / "lose" / "a.png").write_bytes(png(first, (24, 16 + first)))
        elif format == "jsonl":
            write_jsonl(root / "p.jsonl", [{"prompt": "x", "chosen": "a.png", "rejected": "b.png"}])
            (root / "a.png").write_bytes(png(first, (24, 16 + first)))
        elif format == "parquet":
            write_parquet(root / "a.parquet", [{**ROWS[0], "jpg_0": png(first)}])
        else:
            datasets.Dataset.from_list([{**ROWS[0], "jpg_0": png(first)}]).save_to_disk(str(root))
        return root

    def digest(root: Path) -> str:
        return open_source(str(root), format=format).fingerprint()

    one = make(tmp_path / "one", 1)
    assert digest(one) == digest(one)
    assert digest(one) != digest(make(tmp_path / "two", 2))
