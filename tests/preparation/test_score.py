"""Stage `score`: hand-checked scores, work done once, and a table that survives SIGKILL."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from smpo.artefacts import read_manifest
from smpo.data.images import decode_image
from smpo.data.pair_set import PairSet
from smpo.errors import ConfigError, DataError, StaleError
from smpo.preparation.pairs import prepare_pairs
from smpo.preparation.score import ScoreTable, describe, score_pairs
from smpo.rewards.clip import ClipScore
from tests.data.pictures import good_row, png, write_parquet
from tests.preparation.scorers import Brightness, expected_score
from tests.rewards.conftest import save_clip


def test_scores_of_each_image(pairs: PairSet, tmp_path: Path):
    report = score_pairs(pairs, Brightness(), tmp_path / "scores", batch_size=3, block_size=4)
    table = ScoreTable.open(tmp_path / "scores")
    assert table.pair_ids == pairs.pair_ids
    for side, scores in (("image_0", table.score_0), ("image_1", table.score_1)):
        expected = [expected_score(decode_image(getattr(p, side)), p.caption) for p in pairs.iter_images()]
        assert torch.equal(scores, torch.tensor(expected, dtype=torch.float32))
    assert (report.pairs, report.blocks, report.computed, report.scorer) == (10, 3, 3, "brightness")
    both = torch.cat([table.score_0, table.score_1]).double()
    assert report.score_range == (both.min().item(), both.max().item())
    assert table.identity == {"name": "brightness", "weights": "one"}
    assert table.pairs_fingerprint == pairs.fingerprint
    assert read_manifest(tmp_path / "scores", stage="score")["results"]["ties"] == 0
    assert describe(report) == (f"10 pairs scored by brightness in [{both.min().item():.6g}, {both.max().item():.6g}] "
                                f"in {tmp_path / 'scores'} (3 of 3 blocks computed)")


@pytest.mark.parametrize(("batch_size", "block_size"), [(1, 10), (32, 1), (7, 3)])
def test_sizes_change_nothing(pairs: PairSet, tmp_path: Path, batch_size: int, block_size: int):
    score_pairs(pairs, Brightness(), tmp_path / "a")
    scorer = Brightness()
    score_pairs(pairs, scorer, tmp_path / "b", batch_size=batch_size, block_size=block_size)
    assert max(count for count, _ in scorer.calls) <= batch_size
    assert ScoreTable.open(tmp_path / "a").table.equals(ScoreTable.open(tmp_path / "b").table)


def test_repeated_images_are_scored_once(tmp_path: Path):
    """Three pairs of one prompt share image 0; a fourth shows it for another prompt: 3 + 1 + 1 + 1 images."""
    rows = [{**good_row(index), "caption": "p" if index < 3 else "q", "jpg_0": png(0), "image_0_uid": "shared"}
            for index in range(4)]
    rows[3] |= {"jpg_1": rows[2]["jpg_1"], "image_1_uid": rows[2]["image_1_uid"]}
    write_parquet(tmp_path / "s.parquet", rows)
    prepare_pairs(str(tmp_path / "s.parquet"), tmp_path / "pairs")
    scorer = Brightness()
    score_pairs(PairSet.open(tmp_path / "pairs"), scorer, tmp_path / "scores", batch_size=2)
    assert scorer.calls == [(2, ("p", "p")), (2, ("p", "p")), (2, ("q", "q"))]
    table = ScoreTable.open(tmp_path / "scores")
    assert table.score_0[0] == table.score_0[2] != table.score_0[3]


def test_resume_after_sigkill(pairs: PairSet, tmp_path: Path):
    """Killed in the third of five blocks: two are there, three are computed, and the table is the straight one's."""
    out = tmp_path / "scores"
    command = [sys.executable, "-m", "tests.preparation.scorers", str(pairs.folder), str(out)]
    root = Path(__file__).parents[2]
    killed = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(file.name for file in out.glob("block-*")) == ["block-00000.parquet", "block-00001.parquet"]
    with pytest.raises(DataError) as caught:
        ScoreTable.open(out)
    assert str(caught.value) == f"{out} is unfinished; run `smpo score` again to complete it"
    (out / "block-00002.parquet.tmp-1").write_bytes(b"what a kill in the middle of a write leaves")
    before = [(out / f"block-0000{n}.parquet").stat().st_mtime_ns for n in (0, 1)]
    scorer = Brightness()
    report = score_pairs(pairs, scorer, out, batch_size=4, block_size=2)
    assert (report.computed, report.blocks, len(scorer.calls)) == (3, 5, 3)
    assert before == [(out / f"block-0000{n}.parquet").stat().st_mtime_ns for n in (0, 1)]
    score_pairs(pairs, Brightness(), tmp_path / "straight", batch_size=4, block_size=2)
    assert ScoreTable.open(out).table.equals(ScoreTable.open(tmp_path / "straight").table)
    assert ScoreTable.open(out).fingerprint == ScoreTable.open(tmp_path / "straight").fingerprint
    assert len(list(out.glob("block-*"))) == 5


def test_resume_with_another_block_size(pairs: PairSet, tmp_path: Path):
    """Blocks of another size are not mistaken for whole ones, and none of them is left over."""
    out = tmp_path / "scores"
    score_pairs(pairs, Brightness(), out, block_size=2)
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    score_pairs(pairs, Brightness(), out, block_size=4)
    assert len(list(out.glob("block-*"))) == 3
    score_pairs(pairs, Brightness(), tmp_path / "straight")
    assert ScoreTable.open(out).table.equals(ScoreTable.open(tmp_path / "straight").table)


def test_second_run_does_nothing(pairs: PairSet, tmp_path: Path):
    score_pairs(pairs, Brightness(), tmp_path / "scores")
    scorer = Brightness()
    report = score_pairs(pairs, scorer, tmp_path / "scores")
    assert scorer.calls == [] and report.computed == 0
    assert describe(report).endswith("(already done)")


def test_other_scorer_is_refused(pairs: PairSet, tmp_path: Path):
    score_pairs(pairs, Brightness(), tmp_path / "scores")
    with pytest.raises(StaleError) as caught:
        score_pairs(pairs, Brightness(weights="two"), tmp_path / "scores")
    assert str(caught.value) == (f"{tmp_path / 'scores'} was made with scorer.weights='one' (now 'two'); "
                                 "delete the folder or choose another path")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_score_that_is_not_finite(pairs: PairSet, tmp_path: Path, value: float):
    class Broken(Brightness):
        def __call__(self, images, prompts):
            return super().__call__(images, prompts).index_fill(0, torch.tensor([5]), value)

    with pytest.raises(DataError) as caught:  # item 5 is image 1 of pair 2
        score_pairs(pairs, Broken(), tmp_path / "scores", batch_size=8)
    assert str(caught.value) == (f"brightness gives {value} for pair '1002'; check the scorer's weights and dtype "
                                 "(float16 overflows above 65504)")


def test_wrong_shape_is_refused(pairs: PairSet, tmp_path: Path):
    class Column(Brightness):
        def __call__(self, images, prompts):
            return super().__call__(images, prompts)[:, None]

    with pytest.raises(ValueError, match=r"^a scorer returns shape \(20,\), got \(20, 1\) from brightness$"):
        score_pairs(pairs, Column(), tmp_path / "scores")


def test_sizes_are_checked(pairs: PairSet, tmp_path: Path):
    with pytest.raises(ConfigError, match="^batch_size must be a finite number > 0, got 0$"):
        score_pairs(pairs, Brightness(), tmp_path / "scores", batch_size=0)


def test_progress(pairs: PairSet, tmp_path: Path):
    calls = []
    score_pairs(pairs, Brightness(), tmp_path / "s", block_size=4, progress=lambda *args: calls.append(args))
    assert calls == [(4, 10), (8, 10), (10, 10)]


def test_clip_from_disk(pairs: PairSet, tmp_path: Path):
    """The real scorer through the real loader; the batch size moves nothing beyond float tolerance."""
    scorer = ClipScore(source=str(save_clip(tmp_path / "clip")))
    score_pairs(pairs, scorer, tmp_path / "a", batch_size=3)
    score_pairs(pairs, scorer, tmp_path / "b", batch_size=20, block_size=4)
    a, b = ScoreTable.open(tmp_path / "a"), ScoreTable.open(tmp_path / "b")
    assert a.identity["weights"] == scorer.identity()["weights"]
    assert torch.allclose(a.score_0, b.score_0, atol=1e-6) and torch.allclose(a.score_1, b.score_1, atol=1e-6)
    first = next(pairs.iter_images())
    assert torch.allclose(a.score_1[:1], scorer([decode_image(first.image_1)], [first.caption]), atol=1e-6)
    assert pq.read_schema(tmp_path / "a" / "block-00000.parquet").names == ["pair_id", "score_0", "score_1"]
