"""The stage `audit` over a real pair set: what it writes, resumes and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smpo.audit.repeats import find_repeats, image_numbers
from smpo.audit.stage import audit_pairs
from smpo.core.errors import DataError, StaleError
from smpo.data.pair_set import PairSet
from smpo.labels import LABELS
from smpo.preparation.label import LabelTable, label_pairs
from smpo.preparation.options import PairOptions
from smpo.preparation.pairs import prepare_pairs
from smpo.preparation.score import ScoreTable, score_pairs
from tests.cli.test_app import smpo
from tests.data.pictures import encoded, write_parquet
from tests.preparation.scorers import Brightness


def blurred(seed: int, light: float = 1.0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, int(256 * light), (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)


def write_source(root: Path) -> Path:
    """Twelve pairs of four prompts. Pairs 0 and 1 are one image pair judged both ways; pair 2's images are one picture

    as PNG and as JPEG; pair 3 is a tie; image a-4 is image a-5, recompressed, under another name.
    """
    rows = []
    for i in range(12):
        light, dark = blurred(i), blurred(100 + i, 0.4)
        row = {"caption": f"thing {i // 3} & <more>", "jpg_0": encoded(light), "jpg_1": encoded(dark), "label_0": 1.0,
               "ranking_id": i, "image_0_uid": f"a-{i}", "image_1_uid": f"b-{i}"}
        rows.append(row)
    rows[1] |= {key: rows[0][key] for key in ("jpg_0", "jpg_1", "image_0_uid", "image_1_uid")} | {"label_0": 0.0}
    rows[2]["jpg_1"] = encoded(blurred(2), "JPEG", quality=80)
    rows[3]["label_0"] = 0.5
    rows[4]["jpg_0"] = encoded(blurred(5), "JPEG", quality=80)
    return write_parquet(root / "source.parquet", rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PairSet, dict[str, ScoreTable], LabelTable]:
    root = tmp_path_factory.mktemp("audited")
    prepare_pairs(str(write_source(root)), root / "pairs", options=PairOptions(drop_human_ties=False))
    pairs = PairSet.open(root / "pairs")
    score_pairs(pairs, {"brightness": Brightness()}, root / "score")
    scores = ScoreTable.open(root / "score" / "brightness")
    label_pairs(pairs, {"brightness": scores}, LABELS.build({"name": "smoothed"}), root / "label")
    return pairs, {"brightness": scores}, LabelTable.open(root / "label")


def test_images_are_numbered_by_name(made) -> None:
    numbers = image_numbers(made[0])
    assert numbers.shape == (12, 2) and len(np.unique(numbers)) == 22
    assert numbers[0].tolist() == numbers[1].tolist()


def test_repeated_images_are_found(made, tmp_path: Path) -> None:
    repeats = find_repeats(made[0], tmp_path)
    assert (repeats.images, repeats.reused, repeats.near_pairs, repeats.near_pair_examples) == (22, 2, 1, ("2",))
    assert (repeats.clusters, repeats.clustered_images, repeats.largest_cluster) == (2, 4, 2)
    assert repeats.cluster_examples == ((("2", 0), ("2", 1)), (("4", 0), ("5", 0)))


def test_blocks_change_nothing_and_are_resumed(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find_repeats(made[0], tmp_path / "whole")
    monkeypatch.setattr("smpo.audit.repeats.BLOCK_PAIRS", 5)
    monkeypatch.setattr("smpo.audit.repeats.DECODED_AT_ONCE", 2)

    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_repeats(made[0], tmp_path / "blocks", progress=stop)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "blocks" / "blocks").iterdir()}
    assert len(written) == 2
    decoded: list[int] = []
    describe = find_repeats.__globals__["describe_image"]
    monkeypatch.setattr(
        "smpo.audit.repeats.describe_image", lambda image: decoded.append(1) or describe(image)
    )
    assert find_repeats(made[0], tmp_path / "blocks") == whole
    assert len(decoded) == 4 and all(path.stat().st_mtime_ns == when for path, when in written.items())


def test_audit_writes_a_summary_a_page_and_numbers(made, tmp_path: Path) -> None:
    pairs, scores, labels = made
    report = audit_pairs(pairs, tmp_path / "audit", scores=scores, labels=labels, gamma=10)
    lines = dict(line.split(maxsplit=1) for line in report.text.replace("human labels", "human").splitlines())
    assert lines["pairs"] == "12 pairs, 4 prompts"
    assert lines["human"] == "11 (91.7 %) prefer one image, 1 (8.3 %) are ties"
    assert lines["contradictions"] == (
        "1 of 4 prompts (25.0 %): 1 image pairs judged both ways of 1 judged repeatedly, 0 prompts with a longer cycle"
    )
    assert lines["images"].startswith("22 different ones, 2 in several pairs; 1 pairs (8.3 %) of near-duplicates; ")
    content = json.loads((tmp_path / "audit" / "audit.json").read_text())
    gaps = scores["brightness"].score_0 - scores["brightness"].score_1
    agree = [(g > 0) == (h == 1) for g, h in zip(gaps.tolist(), pairs.human_labels.tolist(), strict=True) if h != 0.5]
    assert content["agreements"][0]["agreement"]["value"] == pytest.approx(np.mean(agree))
    assert content["signal"]["gamma"] == 10 and content["signal"]["pairs"] == len(labels)
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "thing 0 &amp; &lt;more&gt;" in page and page.count("data:image/webp") == 2 + 4
    assert page.count("<section>") == page.count("</section>") == 6  # two plots, signal, contradictions, two of images
    text = (tmp_path / "audit" / "audit.md").read_text()
    assert "- 0, 1\n" in text and "figures/signal-light.png" in text
    assert not (tmp_path / "audit" / "blocks").exists()


def test_second_audit_does_nothing_and_other_inputs_are_refused(made, tmp_path: Path) -> None:
    pairs, scores, labels = made
    first = audit_pairs(pairs, tmp_path / "audit")
    assert not first.skipped
    second = audit_pairs(pairs, tmp_path / "audit")
    assert second.skipped and second.text == first.text
    with pytest.raises(StaleError, match=r"input\.label=absent"):
        audit_pairs(pairs, tmp_path / "audit", labels=labels)
    prepare_pairs(str(write_source(tmp_path)), tmp_path / "pairs")  # without the tie
    others = PairSet.open(tmp_path / "pairs")
    with pytest.raises(StaleError, match="labels another pair set"):
        audit_pairs(others, tmp_path / "b", labels=labels)
    with pytest.raises(StaleError, match="holds the scores of another pair set"):
        audit_pairs(others, tmp_path / "c", scores=scores)


def test_a_damaged_image_is_named(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(data: bytes) -> Image.Image:
        raise DataError("image is truncated")

    monkeypatch.setattr("smpo.audit.repeats.decode_image", damaged)
    with pytest.raises(DataError, match="pair '0': image is truncated"):
        find_repeats(made[0], tmp_path)


def test_unlabelled_pairs_have_no_agreement(tmp_path: Path) -> None:
    rows = [{"caption": "a", "jpg_0": encoded(blurred(i)), "jpg_1": encoded(blurred(9 + i)), "ranking_id": i,
             "image_0_uid": f"a-{i}", "image_1_uid": f"b-{i}"} for i in range(3)]
    write_parquet(tmp_path / "s.parquet", [{**row, "label_0": None} for row in rows])
    prepare_pairs(str(tmp_path / "s.parquet"), tmp_path / "pairs", options=PairOptions(labelled=False))
    report = audit_pairs(PairSet.open(tmp_path / "pairs"), tmp_path / "audit")
    assert "none, so agreement and contradictions are unknown" in report.text
    assert not any(line.startswith("contradictions") for line in report.text.splitlines())


def test_the_command_line_audits_a_folder(made, tmp_path: Path) -> None:
    pairs, _, labels = made
    root = pairs.folder.parent
    dry = smpo("audit", pairs.folder, "--out", tmp_path / "a", "--dry-run")
    assert dry.stdout == f"would read {pairs.folder} and write {tmp_path / 'a'}\n" and not (tmp_path / "a").exists()
    done = smpo("audit", pairs.folder, "--scores", root / "score", "--labels", labels.folder, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'a' / 'audit.html'}\n" in done.stdout
    assert "brightness     agrees with people on " in done.stdout and "the heaviest tenth of 12 pairs" in done.stdout
    unknown = smpo("audit", tmp_path / "nowhere")
    assert unknown.returncode == 1 and len(unknown.stderr.splitlines()) == 1
