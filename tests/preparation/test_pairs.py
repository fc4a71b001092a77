"""Stage `pairs`: what is kept, what is dropped and why, what is refused, and that memory stays bounded."""

import json
import math
import os
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from smpo.core.artefacts import read_manifest
from smpo.core.errors import DataError, StaleError
from smpo.data import images
from smpo.data.images import content_uid
from smpo.data.pair_set import PairImages, PairSet
from smpo.preparation import pairs as stage
from smpo.preparation.options import PairOptions
from smpo.preparation.pairs import describe, prepare_pairs
from smpo.preparation.row_checks import CHOICES
from tests.data.pictures import PNG_HEAD, encoded, good_row, picture, png, write_folders, write_jsonl, write_parquet

ANY = PairOptions(max_dropped_fraction=1.0)


def prepared(tmp_path: Path, rows: list[dict], options: PairOptions | None = None, **settings):
    """The report on `rows` as a parquet source."""
    source = write_parquet(tmp_path / "source.parquet", rows)
    return prepare_pairs(str(source), tmp_path / "pairs", options=options, **settings)


def dropped(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "pairs" / "dropped.jsonl").read_text().splitlines()]


def test_sound_source(pairs: PairSet):
    """Row i of `good_row`: sizes (24, 16) and (16, 20 + i mod 5)."""
    assert len(pairs) == 10
    assert pairs.pair_ids == tuple(str(1000 + index) for index in range(10))
    assert pairs.captions[4] == "a picture of thing 1"
    assert torch.equal(pairs.human_labels, torch.tensor([0.0, 1.0] * 5, dtype=torch.float64))
    assert pairs.uids[3] == (content_uid(png(6)), content_uid(png(7, (16, 23))))
    assert pairs.sizes[7].tolist() == [[24, 16], [16, 22]]
    assert (pairs.folder / "dropped.jsonl").read_text() == ""


def test_images_from_the_middle(pairs: PairSet):
    got = list(pairs.iter_images(4, 6))
    assert got == [PairImages("1004", "a picture of thing 1", png(8), png(9, (16, 24))),
                   PairImages("1005", "a picture of thing 2", png(10), png(11, (16, 20)))]
    assert [pair.pair_id for pair in pairs.iter_images(8)] == ["1008", "1009"]
    assert list(pairs.iter_images(3, 3)) == list(pairs.iter_images(10)) == []


BROKEN = {
    "empty_caption": {"caption": ""},
    "whitespace_caption": {"caption": " \t\n"},
    "null_caption": {"caption": None},
    "undecodable_image": {"jpg_0": b"<html>"},
    "truncated_image": {"jpg_1": png(3, (16, 21))[:PNG_HEAD]},
    "missing_image": {"jpg_0": None},
    "missing_label": {"label_0": math.nan},
    "null_label": {"label_0": None},
    "invalid_label": {"label_0": 2.0},
    "infinite_label": {"label_0": math.inf},
    "human_tie": {"label_0": 0.5},
    "vote_tie": {"label_0": None, "vote_share_0": 0.5},
    "share_above_one": {"vote_share_0": 1.5},
    "share_that_is_no_number": {"vote_share_0": math.nan},
    "identical_images": {"jpg_1": png(2)},
    "duplicate_pair_id": {"ranking_id": 1000},
    "excluded_caption": {"caption": "A Naked, truth"},
}
DETAILS = {
    "empty_caption": ("empty_caption", "caption is ''"),
    "whitespace_caption": ("empty_caption", "caption is ' \\t\\n'"),
    "null_caption": ("empty_caption", "caption is ''"),
    "undecodable_image": ("undecodable_image", "image 0: no PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF image "
                          "(6 bytes that start with 3c68746d6c3e); replace it"),
    "truncated_image": ("truncated_image", "image 1: image is truncated or damaged (image file is truncated); "
                        "replace the file"),
    "missing_image": ("missing_image", "jpg_0 is empty"),
    "missing_label": ("missing_label", "label_0 is empty or NaN"),
    "null_label": ("missing_label", "label_0 is empty or NaN"),
    "invalid_label": ("invalid_label", "label_0 is 2.0, expected 0, 0.5 or 1"),
    "infinite_label": ("invalid_label", "label_0 is inf, expected 0, 0.5 or 1"),
    "human_tie": ("human_tie", "label_0 is 0.5"),
    "vote_tie": ("human_tie", "vote_share_0 is 0.5"),
    "share_above_one": ("invalid_label", "vote_share_0 is 1.5, expected a share of votes in [0, 1]"),
    "share_that_is_no_number": ("invalid_label", "vote_share_0 is nan, expected a share of votes in [0, 1]"),
    "identical_images": ("identical_images", f"both images are {content_uid(png(2))}"),
    "duplicate_pair_id": ("duplicate_pair_id", "an earlier row has this pair_id"),
    "excluded_caption": ("excluded_caption", "caption contains 'naked'"),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_one_broken_row(tmp_path: Path, defect: str):
    """The pair is dropped as a whole, counted and listed; its neighbours stay."""
    rows = [{**good_row(index), "vote_share_0": None if index == 1 else 0.4} for index in range(3)]
    rows[1] |= BROKEN[defect]
    report = prepared(tmp_path, rows, PairOptions(max_dropped_fraction=0.5, exclude_words=("naked",)))
    reason, detail = DETAILS[defect]
    assert report.dropped == {reason: 1}
    assert (report.rows, report.kept) == (3, 2)
    pair_id = "1000" if defect == "duplicate_pair_id" else "1001"
    assert dropped(tmp_path) == [
        {"row": 1, "place": "source.parquet row 2", "pair_id": pair_id, "reason": reason, "detail": detail}]
    opened = PairSet.open(tmp_path / "pairs")
    assert opened.pair_ids == ("1000", "1002")
    assert [pair.image_0 for pair in opened.iter_images()] == [png(0), png(4)]


def test_oversized_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    rows = [good_row(index) for index in range(2)]
    rows[1]["jpg_1"] = png(9, (40, 30))
    assert prepared(tmp_path, rows, ANY).dropped == {"oversized_image": 1}


def test_a_strip_is_dropped(tmp_path: Path):
    """1 x 8000 px would be 512 x 4,096,000 px in a cache of 512 px."""
    rows = [{**good_row(0), "jpg_1": png(9, (8000, 1))}, {**good_row(1), "jpg_0": png(8, (64, 2))}, good_row(2)]
    assert prepared(tmp_path, rows).dropped == {"narrow_image": 1}
    assert dropped(tmp_path)[0]["detail"] == "image 1 has 8000 x 1 px, more than max_aspect 32"
    assert prepared(tmp_path / "b", rows, PairOptions(max_aspect=2)).kept == 1
    with pytest.raises(ValidationError, match="max_aspect must be >= 1, got 0.5"):
        PairOptions(max_aspect=0.5)


def test_malformed_row(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "b.png").write_bytes(png(1))
    file = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "x", "chosen": "a.png", "rejected": "b.png"}, [1]])
    assert prepare_pairs(str(file), tmp_path / "pairs", options=ANY).dropped == {"malformed_row": 1}


def test_every_reason_is_tested_and_documented():
    alone = {"oversized_image", "malformed_row", "narrow_image"}
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", page.partition("## What is dropped")[2].partition("\n## ")[0], re.MULTILINE)
    assert {reason for reason, _ in DETAILS.values()} | alone == set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert {*CHOICES} == set(re.findall(r"`(\w+)`", rows[-1]))


def test_ties_are_kept_on_request(tmp_path: Path):
    rows = [good_row(0), {**good_row(1), "label_0": 0.5}]
    assert prepared(tmp_path, rows, PairOptions(drop_human_ties=False)).kept == 2


def test_unlabelled_pairs(tmp_path: Path):
    rows = [{**good_row(0), "label_0": None}, good_row(1)]
    assert prepared(tmp_path, rows, PairOptions(labelled=False)).kept == 2
    labels = PairSet.open(tmp_path / "pairs").human_labels.tolist()
    assert math.isnan(labels[0]) and labels[1] == 1.0


def test_votes_label_a_pair_and_stand_in_the_index(tmp_path: Path):
    """Only votes: the majority is the label. Both: each is kept, here one person against the majority."""
    rows = [{**good_row(0), "label_0": None, "vote_share_0": 0.6}, {**good_row(1), "label_0": 1.0, "vote_share_0": 0.2},
            {**good_row(2), "label_0": 0.0, "vote_share_0": None}]
    assert prepared(tmp_path, rows).kept == 3
    opened = PairSet.open(tmp_path / "pairs")
    assert opened.human_labels.tolist() == [1.0, 1.0, 0.0]
    assert opened.vote_shares_0[:2].tolist() == [0.6, 0.2] and math.isnan(opened.vote_shares_0[2])


def test_excluded_words_are_whole_words(tmp_path: Path):
    rows = [{**good_row(0), "caption": "a snake"}, {**good_row(1), "caption": "nake. d"}]
    assert prepared(tmp_path, rows, PairOptions(exclude_words=("nak", "nake."))).dropped == {"excluded_caption": 1}


def test_exif_size_is_upright(tmp_path: Path):
    exif = picture(0).getexif()
    exif[0x0112] = 6
    rows = [{**good_row(0), "jpg_0": encoded(picture(5, (24, 16)), exif=exif.tobytes())}]
    prepared(tmp_path, rows)
    assert PairSet.open(tmp_path / "pairs").sizes[0, 0].tolist() == [16, 24]


def test_too_many_defects(tmp_path: Path):
    """3 of 20 rows are 15 %; the pass stops at the third, which is row 6."""
    rows = [good_row(index) for index in range(20)]
    for index in (1, 3, 6):
        rows[index]["caption"] = ""
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, rows)
    out = tmp_path / "pairs"
    assert str(caught.value) == (
        "3 of the first 7 rows are defective (3 empty_caption), more than max_dropped_fraction 0.1 of all 20; "
        f"see {out / 'dropped.jsonl'}, then repair the source or raise the fraction")
    with pytest.raises(DataError) as caught:
        PairSet.open(out)
    assert str(caught.value) == f"{out} is unfinished; run `smpo pairs` again to complete it"
    assert prepared(tmp_path, rows, PairOptions(max_dropped_fraction=0.15)).kept == 17


def test_ties_do_not_count_as_defects(tmp_path: Path):
    rows = [{**good_row(index), "label_0": 0.5 if index else 1.0} for index in range(10)]
    assert prepared(tmp_path, rows, PairOptions(max_dropped_fraction=0.0)).kept == 1


def test_nothing_left(tmp_path: Path):
    rows = [{**good_row(index), "label_0": 0.5} for index in range(2)]
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, rows)
    listed = tmp_path / "pairs" / "dropped.jsonl"
    assert str(caught.value) == f"none of the 2 rows can be used (2 human_tie); see {listed}"


def test_no_rows(tmp_path: Path):
    file = write_parquet(tmp_path / "source.parquet", [good_row(0)])
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(DataError) as caught:
        prepare_pairs(str(file), tmp_path / "pairs")
    assert str(caught.value) == f"{file} holds no rows; correct the path or split"


def test_labels_required(tmp_path: Path):
    row = {name: good_row(0)[name] for name in ("caption", "jpg_0", "jpg_1")}
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, [row])
    assert str(caught.value) == (f"{tmp_path / 'source.parquet'} has no human labels (read as Pick-a-Pic: caption, "
                                 "jpg_0, jpg_1); add a column label_0, preferred or vote_share_0, name it in "
                                 "data.columns, or set data.labelled to false")
    assert not (tmp_path / "pairs").exists()


def test_options_are_checked():
    with pytest.raises(ValidationError, match=r"max_dropped_fraction must lie in \[0, 1\], got 1.5"):
        PairOptions(max_dropped_fraction=1.5)


def test_second_run_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [good_row(index) for index in range(3)]
    first = prepared(tmp_path, rows)
    monkeypatch.setattr(stage, "check_pair", None)
    second = prepare_pairs(str(tmp_path / "source.parquet"), tmp_path / "pairs")
    assert (first.reused, second.reused) == (False, True)
    assert (second.kept, second.dropped, second.rows) == (first.kept, first.dropped, first.rows)


def test_other_source_is_refused(tmp_path: Path):
    prepared(tmp_path, [good_row(0)])
    with pytest.raises(StaleError, match=r"was made with input.source='.{12}' \(now '.{12}'\); delete the folder"):
        prepared(tmp_path, [good_row(1)])


def test_other_options_are_refused(tmp_path: Path):
    prepared(tmp_path, [good_row(0)])
    with pytest.raises(StaleError, match=r"was made with drop_human_ties=True \(now False\)"):
        prepared(tmp_path, [good_row(0)], PairOptions(drop_human_ties=False))


def test_moved_source(tmp_path: Path):
    """The images may move: the same folder is accepted from the new place, with the same fingerprint."""
    prepared(tmp_path, [good_row(0)])
    before = PairSet.open(tmp_path / "pairs")
    (tmp_path / "moved").mkdir()
    (tmp_path / "source.parquet").rename(tmp_path / "moved" / "source.parquet")
    with pytest.raises(DataError) as caught:
        next(before.iter_images())
    source = tmp_path / "source.parquet"
    assert str(caught.value) == (
        f"cannot read the images of {tmp_path / 'pairs'}: {source} holds no .parquet file; correct the path or choose "
        "another format; if they were moved, run `smpo pairs` again with their new path and the same output folder")
    prepare_pairs(str(tmp_path / "moved" / "source.parquet"), tmp_path / "pairs")
    after = PairSet.open(tmp_path / "pairs")
    assert after.fingerprint == before.fingerprint
    assert next(after.iter_images()).image_0 == png(0)


@pytest.mark.parametrize("change", [{"caption": "other"}, {"jpg_1": png(99, (30, 30))}])
def test_changed_source_is_noticed(tmp_path: Path, change: dict):
    prepared(tmp_path, [good_row(0), good_row(1)])
    write_parquet(tmp_path / "source.parquet", [good_row(0), {**good_row(1), **change}])
    with pytest.raises(StaleError) as caught:
        list(PairSet.open(tmp_path / "pairs").iter_images())
    what = "the prompt is another" if "caption" in change else "image 1 is another"
    assert str(caught.value) == (
        f"pair '1001' (row 1 of the source) has changed since {tmp_path / 'pairs'} was made: {what}; bring the old one "
        "back, or run `smpo pairs` into a new folder"
    )


@pytest.mark.parametrize("uid", ["0", "None", "nan", ""])
def test_a_source_that_names_all_images_alike_has_different_images(tmp_path: Path, uid: str):
    rows = [{**good_row(index), "image_0_uid": uid, "image_1_uid": uid} for index in range(3)]
    assert prepared(tmp_path, rows).kept == 3
    assert len({name for names in PairSet.open(tmp_path / "pairs").uids for name in names}) == 6


def test_an_image_replaced_by_another_of_the_same_length_is_noticed(tmp_path: Path):
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "x", "chosen": "a.png", "rejected": "b.png"}])
    contents = {name: png(number) for number, name in enumerate(("a.png", "b.png"))}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    prepare_pairs(str(tmp_path / "p.jsonl"), tmp_path / "pairs")
    for touched in contents:
        os.utime(tmp_path / touched, (1, 1))
    assert prepare_pairs(str(tmp_path / "p.jsonl"), tmp_path / "pairs").reused
    assert len(list(PairSet.open(tmp_path / "pairs").iter_images())) == 1
    replaced = bytearray(contents["b.png"])
    replaced[-20] ^= 1
    (tmp_path / "b.png").write_bytes(replaced)
    with pytest.raises(StaleError, match=r"pair 'row-0' .* has changed since .*: image 1 is another; bring"):
        list(PairSet.open(tmp_path / "pairs").iter_images())


def test_shrunken_source_is_noticed(tmp_path: Path):
    prepared(tmp_path, [good_row(0), good_row(1)])
    write_parquet(tmp_path / "source.parquet", [good_row(0)])
    with pytest.raises(StaleError, match="^pair '1001'"):
        list(PairSet.open(tmp_path / "pairs").iter_images())


def test_report_and_progress(tmp_path: Path):
    calls = []
    rows = [good_row(index) for index in range(20)]
    rows[2]["caption"] = ""
    rows[3]["label_0"] = rows[5]["label_0"] = 0.5
    report = prepared(tmp_path, rows, progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (1, 20) and calls[-1] == (20, 20)
    out = tmp_path / "pairs"
    assert describe(report) == (f"17 of 20 pairs kept in {out}; format parquet (a .parquet file)\n"
                                "read as Pick-a-Pic: caption, jpg_0, jpg_1, label_0, ranking_id; 3 columns ignored "
                                "(image_0_uid, image_1_uid, model_0); rows: 18 labelled, 2 tied\n"
                                f"dropped: 2 human_tie, 1 empty_caption; listed in {out / 'dropped.jsonl'}")
    assert read_manifest(out, stage="pairs")["results"]["dropped"] == {"human_tie": 2, "empty_caption": 1}


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(tmp_path: Path, workers: int):
    rows = [good_row(index) for index in range(17)]
    rows[4]["jpg_0"] = b"x"
    report = prepared(tmp_path, rows, workers=workers)
    manifest = read_manifest(tmp_path / "pairs", stage="pairs")
    other = prepare_pairs(str(tmp_path / "source.parquet"), tmp_path / "again", workers=2)
    assert report.kept == 16 and other.dropped == report.dropped
    assert manifest["results"] == read_manifest(tmp_path / "again", stage="pairs")["results"]


def test_index_is_written_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stage, "INDEX_ROWS", 4)
    prepared(tmp_path, [good_row(index) for index in range(9)])
    assert len(PairSet.open(tmp_path / "pairs")) == 9


def test_folders_end_to_end(tmp_path: Path):
    root = write_folders(tmp_path / "f", ["a", "b", "c"])
    (root / "lose" / "b.png").unlink()
    report = prepare_pairs(str(root), tmp_path / "pairs", options=ANY)
    assert report.dropped == {"missing_image": 1}
    opened = PairSet.open(tmp_path / "pairs")
    assert [pair.image_1 for pair in opened.iter_images()] == [png(100), png(102)]
    assert opened.human_labels.tolist() == [1.0, 1.0]


def test_some_rows_at_random_are_the_same_every_time_and_among_those_of_a_larger_number(tmp_path: Path):
    rows = [good_row(index) for index in range(40)]
    ids = {}
    for number in (10, 20, 40, 100):
        report = prepared(tmp_path / str(number), rows, PairOptions(max_rows=number))
        assert report.rows == report.kept == min(number, 40)
        ids[number] = PairSet.open(report.folder).pair_ids
        assert list(ids[number]) == sorted(ids[number])
    assert set(ids[10]) < set(ids[20]) < set(ids[40]) == set(ids[100])
    assert ids[10] != ids[40][:10]
    some = PairSet.open(tmp_path / "10" / "pairs")
    assert [pair.pair_id for pair in some.iter_images(3, 6)] == list(some.pair_ids[3:6])
    with pytest.raises(ValidationError, match="max_rows must be >= 1, got 0"):
        PairOptions(max_rows=0)


def test_another_number_of_rows_makes_a_pair_set_stale(tmp_path: Path):
    prepared(tmp_path, [good_row(index) for index in range(3)])
    with pytest.raises(StaleError, match=r"max_rows=None \(now 2\)"):
        prepare_pairs(str(tmp_path / "source.parquet"), tmp_path / "pairs", options=PairOptions(max_rows=2))
