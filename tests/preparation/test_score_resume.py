"""Stage `score` in real processes: killed anywhere, damaged, shared by several, and always the same table."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from smpo.core.errors import DataError, ProcessError
from smpo.core.processes import this_process
from smpo.data.pair_set import PairSet
from smpo.preparation.score import ScoreTable, score_pairs
from smpo.rewards.clip import ClipScore
from smpo.rewards.options import ScoringOptions
from tests.preparation.scorers import Brightness
from tests.ranks import ranked
from tests.rewards.conftest import save_clip

OPTIONS = ScoringOptions(batch_size=3, block_size=4, workers=0)  # blocks of 4, 4 and 2 pairs: 3, 3 and 2 batches
KILLED = -signal.SIGKILL


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying(Brightness):
    """Kills its process in the call after `survived` calls."""

    survived = 4

    def score(self, inputs, prompts):
        return die() if len(self.calls) == self.survived else super().score(inputs, prompts)


@pytest.fixture(scope="module")
def straight(pairs: PairSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight")
    score_pairs(pairs, {"light": Brightness()}, out, options=OPTIONS)
    return out / "light"


def assert_same(folder: Path, straight: Path) -> None:
    """The same bytes, the same fingerprint, and nothing left over."""
    assert (folder / "scores.parquet").read_bytes() == (straight / "scores.parquet").read_bytes()
    assert ScoreTable.open(folder).fingerprint == ScoreTable.open(straight).fingerprint
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in straight.iterdir())


def blocks(out: Path) -> list[str]:
    return sorted(file.name for file in (out / "light" / "blocks").glob("*.parquet"))


def test_killed_inside_a_block(pairs: PairSet, straight: Path, tmp_path: Path):
    """In the second batch of the second of three blocks: one block is there, two are computed."""
    assert ranked(lambda: score_pairs(pairs, {"light": Dying()}, tmp_path, options=OPTIONS), 1) == [KILLED]
    assert blocks(tmp_path) == ["block-00000.parquet"]
    with pytest.raises(DataError) as caught:
        ScoreTable.open(tmp_path / "light")
    assert str(caught.value) == f"{tmp_path / 'light'} is unfinished; run `smpo score` again to complete it"
    scorer = Brightness()
    assert score_pairs(pairs, {"light": scorer}, tmp_path, options=OPTIONS).computed == 2
    assert [count for count, _ in scorer.calls] == [3, 3, 2, 3, 1]  # 8 images, then 4
    assert_same(tmp_path / "light", straight)


def test_killed_inside_any_write(pairs: PairSet, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Before the rename of the first write, after it, before that of the second, ... until a run gets through.

    The table is always the same, and a block that was renamed is never computed again.
    """
    original = os.fsync
    for survived in range(100):
        out, count = tmp_path / str(survived), 0

        def work(*args: Any, survived: int = survived, **options: Any) -> Any:
            nonlocal count
            count += 1
            return die() if count > survived else original(*args, **options)

        monkeypatch.setattr(os, "fsync", work)
        codes = ranked(lambda out=out: score_pairs(pairs, {"light": Brightness()}, out, options=OPTIONS), 1)
        monkeypatch.setattr(os, "fsync", original)
        there, scorer = len(blocks(out)), Brightness()
        score_pairs(pairs, {"light": scorer}, out, options=OPTIONS)
        assert_same(out / "light", straight)
        if codes == [0]:
            break
        assert sum(count for count, _ in scorer.calls) == (20, 12, 4, 0)[there]  # images of the blocks not there
    assert survived == 12  # two syncs each of the manifest, three blocks, the table and the manifest


def test_killed_before_the_blocks_are_removed(
    pairs: PairSet, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", die)
    assert ranked(lambda: score_pairs(pairs, {"light": Brightness()}, tmp_path, options=OPTIONS), 1) == [KILLED]
    monkeypatch.setattr(shutil, "rmtree", original)
    assert len(blocks(tmp_path)) == 3
    assert score_pairs(pairs, {"light": Brightness()}, tmp_path, options=OPTIONS).computed == 0
    assert_same(tmp_path / "light", straight)


@pytest.mark.parametrize("damage", ["cut", "empty", "one bit of a score"])
def test_a_damaged_block_is_computed_again(pairs: PairSet, straight: Path, tmp_path: Path, damage: str):
    assert ranked(lambda: score_pairs(pairs, {"light": Dying()}, tmp_path, options=OPTIONS), 1) == [KILLED]
    block = tmp_path / "light" / "blocks" / "block-00000.parquet"
    data = block.read_bytes()
    score = ScoreTable.open(straight).score_0[:1].numpy().tobytes()
    flipped = bytes([score[0] ^ 1]) + score[1:]
    assert score in data
    damaged = {"cut": data[: len(data) // 2], "empty": b"", "one bit of a score": data.replace(score, flipped)}
    block.write_bytes(damaged[damage])
    assert score_pairs(pairs, {"light": Brightness()}, tmp_path, options=OPTIONS).computed == 3
    assert_same(tmp_path / "light", straight)


def test_resumed_with_another_block_size(pairs: PairSet, straight: Path, tmp_path: Path):
    """Blocks of another size are not mistaken for whole ones, and none of them is left over."""
    assert ranked(lambda: score_pairs(pairs, {"light": Dying()}, tmp_path, options=OPTIONS), 1) == [KILLED]
    other = ScoringOptions(batch_size=3, block_size=3, workers=0)
    assert score_pairs(pairs, {"light": Brightness()}, tmp_path, options=other).computed == 4
    assert_same(tmp_path / "light", straight)


@pytest.mark.parametrize("world_size", [2, 5])
def test_several_processes_share_the_blocks(pairs: PairSet, straight: Path, tmp_path: Path, world_size: int):
    """Each image is scored by one of them, and the table is bit for bit that of one process."""

    def work() -> None:
        scorer, rank = Brightness(), this_process().rank
        report = score_pairs(pairs, {"light": scorer}, tmp_path / "scores", options=OPTIONS)
        assert report.computed == 3
        (tmp_path / f"images-{rank}").write_text(str(sum(count for count, _ in scorer.calls)))

    assert ranked(work, world_size) == [0] * world_size
    images = [int((tmp_path / f"images-{rank}").read_text()) for rank in range(world_size)]
    assert sum(images) == 20 and (world_size > 3 or images == [8, 12])
    assert_same(tmp_path / "scores" / "light", straight)


@pytest.mark.parametrize("then", [1, 3])
def test_one_of_two_is_killed_and_another_number_carries_on(
    pairs: PairSet, straight: Path, tmp_path: Path, then: int
):
    """Process 0 does its block, process 1 dies in its second: the first hears of it, and one block is left."""

    def work() -> None:
        scorer = Dying()
        scorer.survived = 4 if this_process().rank == 1 else 100
        with pytest.raises(ProcessError, match="process 0 of 2 waited for the others to score their blocks, and one"):
            score_pairs(pairs, {"light": scorer}, tmp_path, options=OPTIONS)

    assert ranked(work, 2) == [0, KILLED]
    assert blocks(tmp_path) == ["block-00000.parquet", "block-00001.parquet"]

    def carry_on() -> None:
        assert score_pairs(pairs, {"light": Brightness()}, tmp_path, options=OPTIONS).computed == 1

    assert ranked(carry_on, then) == [0] * then
    assert_same(tmp_path / "light", straight)


def test_a_clip_model_scores_alike_in_one_and_two_processes_and_any_workers(pairs: PairSet, tmp_path: Path):
    source = str(save_clip(tmp_path / "clip"))

    def score(out: str, workers: int) -> None:
        options = ScoringOptions(batch_size=3, block_size=4, workers=workers)
        score_pairs(pairs, {"clip": ClipScore(source=source)}, tmp_path / out, options=options)

    score("one", 0)
    score("workers", 2)
    assert ranked(lambda: score("two", 1), 2) == [0, 0]
    tables = [(tmp_path / out / "clip" / "scores.parquet").read_bytes() for out in ("one", "workers", "two")]
    assert tables[0] == tables[1] == tables[2]
