"""Parts of an artefact: what a killed run has written counts only while it is what was written."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from smpo.core import seals
from smpo.core.artefacts import Artefact, Status, begin, finish
from smpo.core.errors import DataError
from smpo.core.parts import Parts, SealedBlocks
from tests.training.outcomes import exit_code, flip_byte

WORK = {"stage": "cache", "settings": {}, "inputs": {}}


def npy(value: float) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.full(3, value))
    return buffer.getvalue()


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    begin(tmp_path, **WORK)
    parts = Parts.open(tmp_path)
    for number in range(3):
        parts.write(f"x/mean-{number:05d}.npy", npy(number))
    return tmp_path


def test_another_call_finds_them(begun: Path) -> None:
    assert sorted(Parts.open(begun).seals) == [f"x/mean-{number:05d}.npy" for number in range(3)]
    assert not Parts.open(begun).lost


@pytest.mark.parametrize("harm", [flip_byte, Path.unlink, lambda path: os.truncate(path, 5), lambda path: os.replace(
    path.with_name("mean-00002.npy"), path)])
def test_a_part_that_was_changed_is_made_again_with_a_warning(begun: Path, harm: object) -> None:
    harm(begun / "x/mean-00001.npy")
    with warnings.catch_warnings(record=True):
        parts = Parts.open(begun)
    assert "x/mean-00001.npy" not in parts and "x/mean-00001.npy" in parts.lost
    assert "x/mean-00000.npy" in parts


def test_a_file_that_nobody_noted_is_no_part(begun: Path) -> None:
    (begun / "x/mean-00003.npy").write_bytes(npy(3))
    assert "x/mean-00003.npy" not in Parts.open(begun)


def test_a_journal_that_was_cut_off_loses_its_last_line_alone(begun: Path) -> None:
    (journal,) = begun.glob("parts-*.jsonl")
    os.truncate(journal, journal.stat().st_size - 9)
    assert len(Parts.open(begun).seals) == 2


def test_finishing_reads_no_part_and_removes_the_journals(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts.open(begun)
    monkeypatch.setattr(seals, "hash_file", lambda path: pytest.fail(f"{path} is read"))
    finish(begun, {}, sealed=parts.of_all())
    assert not parts.unsealed and begin(begun, **WORK) is Status.DONE
    monkeypatch.undo()
    Artefact.open(begun, stage="cache").check()


def test_a_deleted_file_of_a_complete_artefact_comes_back(begun: Path) -> None:
    finish(begun, {}, sealed=Parts.open(begun).of_all())
    (begun / "x/mean-00001.npy").unlink()
    with pytest.warns(UserWarning, match=r"mean-00001\.npy is missing; it is made again"):
        assert begin(begun, **WORK) is Status.PARTIAL
    assert sorted(Parts.open(begun).lost) == ["x/mean-00001.npy"]


@pytest.fixture
def blocks(begun: Path) -> SealedBlocks:
    finish(begun, {}, sealed=Parts.open(begun).of_all())
    return SealedBlocks(Artefact.open(begun, stage="cache"), "x/mean")


def test_a_block_is_read_when_it_is_used_and_then_checked_once(begun: Path, blocks: SealedBlocks) -> None:
    flip_byte(begun / "x/mean-00002.npy")
    assert len(blocks) == 3 and blocks[1].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(DataError, match=r"mean-00002\.npy is damaged .*; delete this file and run `smpo cache` again"):
        blocks[2]


def test_what_a_forked_process_has_checked_is_checked(
    begun: Path, blocks: SealedBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use() -> None:
        blocks[0]

    assert exit_code(use) == 0
    monkeypatch.setattr(Artefact, "file", lambda *_: pytest.fail("checked twice"))
    assert blocks[0].tolist() == [0.0, 0.0, 0.0]


def test_many_files_are_listed_apart_and_the_list_is_sealed(tmp_path: Path) -> None:
    begin(tmp_path, **WORK)
    names = [f"{number:03d}.txt" for number in range(100)]
    for name in names:
        (tmp_path / name).write_text(name)
    finish(tmp_path, {}, files=names)
    (listing,) = tmp_path.glob("files-*.json")
    Artefact.open(tmp_path, stage="cache").check()
    flip_byte(listing, 40)
    with pytest.raises(DataError, match=rf"{listing.name} is damaged"):
        Artefact.open(tmp_path, stage="cache").check()
    with pytest.raises(DataError, match=rf"{listing.name} is damaged"):
        begin(tmp_path, **WORK)
