"""Stage `score`: hand-checked scores, work done once, one pass for several scorers."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
import torch

from smpo.core.artefacts import read_manifest
from smpo.core.errors import ConfigError, DataError, StaleError
from smpo.data.images import decode_image
from smpo.data.pair_set import PairSet
from smpo.preparation.pairs import prepare_pairs
from smpo.preparation.score import ScoreTable, describe, score_pairs
from smpo.rewards.clip import ClipScore
from smpo.rewards.options import ScoringOptions
from tests.data.pictures import PNG_HEAD, good_row, png, write_jsonl, write_parquet
from tests.preparation.scorers import Brightness, MeanPixel, expected_score
from tests.rewards.conftest import save_clip

HERE = ScoringOptions(workers=0)


def test_scores_of_each_image(pairs: PairSet, tmp_path: Path):
    options = ScoringOptions(batch_size=3, block_size=4)
    report = score_pairs(pairs, {"light": Brightness()}, tmp_path / "scores", options=options)
    table = ScoreTable.open(tmp_path / "scores" / "light")
    assert table.pair_ids == pairs.pair_ids
    for side, scores in (("image_0", table.score_0), ("image_1", table.score_1)):
        expected = [expected_score(decode_image(getattr(p, side)), p.caption) for p in pairs.iter_images()]
        assert torch.equal(scores, torch.tensor(expected, dtype=torch.float32))
    both = torch.cat([table.score_0, table.score_1]).double()
    low, high = both.min().item(), both.max().item()
    assert (report.pairs, report.computed, report.score_ranges) == (10, 3, {"light": (low, high)})
    assert table.identity == {"name": "brightness", "weights": "one"}
    assert table.pairs_fingerprint == pairs.fingerprint
    assert read_manifest(tmp_path / "scores" / "light", stage="score")["results"]["ties"] == 0
    assert describe(report) == (
        f"10 pairs scored by light in [{low:.6g}, {high:.6g}]; in {tmp_path}/scores (3 blocks computed)")
    assert sorted(file.name for file in table.folder.iterdir()) == ["manifest.json", "scores.parquet"]


@pytest.mark.parametrize(("batch_size", "block_size", "workers"), [(1, 10, 0), (32, 1, 2), (7, 3, 1)])
def test_sizes_and_workers_change_nothing(
    pairs: PairSet, tmp_path: Path, batch_size: int, block_size: int, workers: int
):
    score_pairs(pairs, {"a": Brightness()}, tmp_path, options=HERE)
    scorer = Brightness()
    options = ScoringOptions(batch_size=batch_size, block_size=block_size, workers=workers)
    score_pairs(pairs, {"b": scorer}, tmp_path, options=options)
    assert max(count for count, _ in scorer.calls) == min(batch_size, 2 * block_size, 20)
    assert ScoreTable.open(tmp_path / "a").table.equals(ScoreTable.open(tmp_path / "b").table)


def test_repeated_images_are_decoded_and_scored_once(tmp_path: Path):
    """Three pairs of one prompt share image 0; a fourth shows it for another prompt: 3 + 1 + 1 + 1 images."""
    rows = [{**good_row(index), "caption": "p" if index < 3 else "q", "jpg_0": png(0), "image_0_uid": "shared"}
            for index in range(4)]
    rows[3] |= {"jpg_1": rows[2]["jpg_1"], "image_1_uid": rows[2]["image_1_uid"]}
    write_parquet(tmp_path / "s.parquet", rows)
    prepare_pairs(str(tmp_path / "s.parquet"), tmp_path / "pairs")
    seen = []
    scorer = Brightness(preprocessing=Counting(seen))
    options = ScoringOptions(batch_size=2, workers=0)
    score_pairs(PairSet.open(tmp_path / "pairs"), {"light": scorer}, tmp_path / "scores", options=options)
    assert scorer.calls == [(2, ("p", "p")), (2, ("p", "p")), (2, ("q", "q"))]
    assert len(seen) == 6
    table = ScoreTable.open(tmp_path / "scores" / "light")
    assert table.score_0[0] == table.score_0[2] != table.score_0[3]


@dataclass(frozen=True)
class Counting(MeanPixel):
    """Notes the size of each image."""

    seen: list

    def __call__(self, image):
        self.seen.append(image.size)
        return super().__call__(image)


@dataclass(frozen=True)
class Largest(MeanPixel):
    """Another preprocessing, with another description and shape."""

    def __call__(self, image):
        return super().__call__(image)[None] + 1

    def describe(self):
        return {"version": "largest"}


@dataclass
class Other(Brightness):
    name: ClassVar[str] = "other"

    def score(self, inputs, prompts):
        return super().score(inputs[:, 0], prompts)


def test_several_scorers_share_one_pass_and_score_as_each_alone(pairs: PairSet, tmp_path: Path):
    """Two of the three preprocess alike: each of the 20 images is preprocessed once for both."""
    seen = []
    alike = Counting(seen)
    scorers = {"light": Brightness(preprocessing=alike), "dark": Brightness(sign=-1.0, preprocessing=alike),
               "other": Other(preprocessing=Largest())}
    report = score_pairs(pairs, scorers, tmp_path / "together", options=HERE)
    assert set(report.score_ranges) == {"light", "dark", "other"} and report.computed == 3
    assert len(seen) == 20
    for name, scorer in scorers.items():
        score_pairs(pairs, {name: scorer}, tmp_path / "alone", options=HERE)
        together, alone = (ScoreTable.open(tmp_path / place / name) for place in ("together", "alone"))
        assert together.table.equals(alone.table) and together.fingerprint == alone.fingerprint
    light, dark, other = (ScoreTable.open(tmp_path / "together" / name).score_0 for name in scorers)
    assert torch.equal(dark, -light) and torch.allclose(other, light + 1)


def test_a_further_scorer_rescores_nothing(pairs: PairSet, tmp_path: Path):
    score_pairs(pairs, {"light": Brightness()}, tmp_path, options=HERE)
    before = ScoreTable.open(tmp_path / "light")
    first, second = Brightness(), Brightness(sign=-1.0)
    score_pairs(pairs, {"dark": second, "light": first}, tmp_path, options=HERE)
    assert first.calls == [] and sum(count for count, _ in second.calls) == 20
    assert ScoreTable.open(tmp_path / "light").fingerprint == before.fingerprint


def test_second_run_does_nothing(pairs: PairSet, tmp_path: Path):
    score_pairs(pairs, {"light": Brightness()}, tmp_path, options=HERE)
    scorer = Brightness()
    report = score_pairs(pairs, {"light": scorer}, tmp_path, options=HERE)
    assert scorer.calls == [] and report.computed == 0
    assert describe(report).endswith("(already done)")


def test_other_scorer_is_refused(pairs: PairSet, tmp_path: Path):
    score_pairs(pairs, {"light": Brightness()}, tmp_path, options=HERE)
    with pytest.raises(StaleError) as caught:
        score_pairs(pairs, {"light": Brightness(weights="two")}, tmp_path, options=HERE)
    assert str(caught.value) == (f"{tmp_path / 'light'} was made with scorer.weights='one' (now 'two'); "
                                 "delete the folder or choose another path")


def test_a_changed_table_is_refused(pairs: PairSet, tmp_path: Path):
    score_pairs(pairs, {"light": Brightness()}, tmp_path, options=HERE)
    file = tmp_path / "light" / "scores.parquet"
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, "score_0", table["score_1"]), file)
    with pytest.raises(DataError, match="scores.parquet is damaged or was changed .*; delete this file and run"):
        ScoreTable.open(tmp_path / "light")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("workers", [0, 1])
def test_score_that_is_not_finite(pairs: PairSet, tmp_path: Path, value: float, workers: int):
    class Broken(Brightness):
        def score(self, inputs, prompts):
            return super().score(inputs, prompts).index_fill(0, torch.tensor([5]), value)

    with pytest.raises(DataError) as caught:  # item 5 is image 1 of pair 2
        score_pairs(pairs, {"light": Broken()}, tmp_path, options=ScoringOptions(batch_size=8, workers=workers))
    assert str(caught.value) == (f"scorer 'light' gave {value} for image 1 of pair '1002'; check its weights and dtype "
                                 "(float16 overflows above 65504)")


def test_wrong_shape_is_refused(pairs: PairSet, tmp_path: Path):
    class Column(Brightness):
        def score(self, inputs, prompts):
            return super().score(inputs, prompts)[:, None]

    with pytest.raises(DataError, match=r"^scorer 'light' returned shape \(20, 1\), expected \(20,\); correct it$"):
        score_pairs(pairs, {"light": Column()}, tmp_path, options=HERE)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_has_been_changed_is_named(tmp_path: Path, workers: int):
    """The file keeps its size; the message comes out of a worker as one line."""
    for index in range(4):
        (tmp_path / f"{index}.png").write_bytes(png(index))
    write_jsonl(tmp_path / "s.jsonl", [
        {"pair_id": f"p{row}", "prompt": "x", "chosen": f"{2 * row}.png", "rejected": f"{2 * row + 1}.png"}
        for row in range(2)
    ])
    prepare_pairs(str(tmp_path / "s.jsonl"), tmp_path / "pairs")
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[:PNG_HEAD] + bytes(len(whole) - PNG_HEAD))
    with pytest.raises(StaleError) as caught:
        score_pairs(PairSet.open(tmp_path / "pairs"), {"light": Brightness()}, tmp_path / "scores",
                    options=ScoringOptions(workers=workers))
    assert str(caught.value).startswith("pair 'p1' (row 1 of the source) has changed since ")
    assert "image 1 is another" in str(caught.value) and "\n" not in str(caught.value)


def test_names_and_sizes_are_checked(pairs: PairSet, tmp_path: Path):
    with pytest.raises(ConfigError, match="^no scorers were given; name at least one$"):
        score_pairs(pairs, {}, tmp_path / "scores")
    with pytest.raises(ConfigError, match="^scorer '../x' cannot be the name of a folder: use 1 to"):
        score_pairs(pairs, {"../x": Brightness()}, tmp_path / "scores")
    with pytest.raises(ValueError, match="greater than 0"):
        ScoringOptions(batch_size=0)
    assert not (tmp_path / "scores").exists()


def test_progress_counts_rows_and_images_a_second(pairs: PairSet, tmp_path: Path):
    calls = []
    score_pairs(pairs, {"light": Brightness(), "dark": Brightness()}, tmp_path, options=ScoringOptions(block_size=4),
                progress=lambda *args: calls.append(args))
    assert [call[1:] for call in calls] == [(0, 10), (4, 10), (4, 10), (8, 10), (8, 10), (10, 10)]
    assert calls[0][0] == "light, dark" and calls[-1][0].startswith("light, dark, ")
    assert calls[-1][0].endswith(" images/s")


def test_clip_from_disk(pairs: PairSet, tmp_path: Path):
    """The real scorer through the real loader; the batch size moves nothing beyond float tolerance."""
    scorer = ClipScore(source=str(save_clip(tmp_path / "clip")))
    score_pairs(pairs, {"a": scorer}, tmp_path, options=ScoringOptions(batch_size=3))
    score_pairs(pairs, {"b": scorer}, tmp_path, options=ScoringOptions(batch_size=20, block_size=4))
    a, b = ScoreTable.open(tmp_path / "a"), ScoreTable.open(tmp_path / "b")
    assert a.identity["weights"] == scorer.identity()["weights"]
    assert torch.allclose(a.score_0, b.score_0, atol=1e-6) and torch.allclose(a.score_1, b.score_1, atol=1e-6)
    first = next(pairs.iter_images())
    assert torch.allclose(a.score_1[:1], scorer([decode_image(first.image_1)], [first.caption]), atol=1e-6)
    assert pq.read_schema(tmp_path / "a" / "scores.parquet").names == ["pair_id", "score_0", "score_1"]
