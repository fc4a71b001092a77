"""Checkpoints exist or do not, whatever happens while they are written or afterwards."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from smpo.core.artefacts import fingerprint
from smpo.core.processes import Process
from smpo.training.checkpoint import TrainState, checkpoints, damage, load_checkpoint, save_checkpoint
from tests.training.faults import PowerCut
from tests.training.outcomes import exit_code, flip_byte


def state(step: int) -> TrainState:
    tensors = {"policy": {"w": torch.full((3, 2), float(step))}, "optimizer": {"0.exp_avg": torch.full((2,), -step)}}
    return TrainState(step, tensors, {"optimizer": {"0": {"step": step}}, "scaler": None})


def assert_same(found: TrainState, expected: TrainState) -> None:
    assert (found.step, found.scalars) == (expected.step, expected.scalars)
    assert found.tensors.keys() == expected.tensors.keys()
    for stem, tensors in expected.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(found.tensors[stem][name], tensor)


def test_a_saved_state_is_read_back_unchanged(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", state(3), keep=2)
    assert_same(load_checkpoint(tmp_path / "c"), state(3))


def rows_of(rank: int, step: int) -> TrainState:
    """What process `rank` of two keeps of `state(step)`: of three rows two or one; scalar tensors only the first."""
    whole = state(step).tensors
    mine = {"w": whole["policy"]["w"].chunk(2)[rank]}
    few = {"0.exp_avg": whole["optimizer"]["0.exp_avg"][:1].chunk(2)[0] if rank == 0 else torch.empty(0)}
    return TrainState(step, {"policy": mine, "optimizer": few | ({"0.step": torch.tensor(7.0)} if rank == 0 else {})})


def save_together(folder: Path, states: list[TrainState]) -> None:
    """Each state's rows saved by a process of its own; threads that meet where processes would."""
    meeting, given = threading.Barrier(len(states)), [None] * len(states)

    def gather(rank: int, one: object) -> list:
        meeting.wait(timeout=20)
        given[rank] = one
        meeting.wait(timeout=20)
        return list(given)

    def save(rank: int) -> None:
        save_checkpoint(
            folder, states[rank], keep=2, process=Process(rank, len(states)), gather=lambda one: gather(rank, one)
        )

    with ThreadPoolExecutor(len(states)) as processes:
        list(processes.map(save, range(len(states))))


def test_rows_saved_by_each_process_are_read_as_whole_tensors(tmp_path: Path) -> None:
    """Three rows on two processes, one row (the second has none), and a tensor that is not split."""
    for step in (2, 3, 3):
        save_together(tmp_path, [rows_of(rank, step) for rank in (0, 1)])
    files = {path.name for path in checkpoints(tmp_path)[0].glob("*.safetensors")}
    assert files == {f"{stem}-0000{n}-of-00002.safetensors" for stem in ("policy", "optimizer") for n in (1, 2)}
    found = load_checkpoint(tmp_path).tensors
    assert torch.equal(found["policy"]["w"], torch.full((3, 2), 3.0)) and list(found["policy"]) == ["w"]
    assert torch.equal(found["optimizer"]["0.exp_avg"], torch.tensor([-3.0]))
    assert found["optimizer"]["0.step"] == 7 and len(found["optimizer"]) == 2
    with pytest.raises(KeyError, match="nothing"):
        found["policy"]["nothing"]
    (checkpoints(tmp_path)[0] / "policy-00002-of-00002.safetensors").unlink()
    with pytest.warns(UserWarning, match="policy-00002-of-00002.safetensors is missing"):
        assert load_checkpoint(tmp_path).step == 2


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing") is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        save_checkpoint(tmp_path, state(step), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000008", "step-00000006"]


def cut_save(folder: Path, at: int | None) -> None:
    """Save step 6 beside steps 2 and 4, losing power at call `at`; without one, leave the number of calls."""
    power = PowerCut(at)
    power.armed = True
    save_checkpoint(folder, state(6), keep=2)
    folder.with_suffix(".calls").write_text(str(power.count))


def test_a_power_cut_at_any_call_of_a_save_leaves_a_whole_state(tmp_path: Path) -> None:
    for step in (2, 4):
        save_checkpoint(tmp_path / "before", state(step), keep=2)
    counting = shutil.copytree(tmp_path / "before", tmp_path / "counting")
    assert exit_code(lambda: cut_save(counting, None)) == 0
    num_calls, found = int(counting.with_suffix(".calls").read_text()), []
    assert num_calls > 10
    for at in range(num_calls):
        folder = shutil.copytree(tmp_path / "before", tmp_path / f"cut-{at}")
        assert exit_code(lambda at=at, folder=folder: cut_save(folder, at)) == -9
        loaded = load_checkpoint(folder)
        assert_same(loaded, state(loaded.step))
        found.append(loaded.step)
        save_checkpoint(folder, state(8), keep=2)  # nothing that was left behind is in the way
        assert_same(load_checkpoint(folder), state(8))
        assert not list(folder.glob(".tmp-*"))
    assert set(found) == {4, 6} and found == sorted(found)  # the old one until some call, then the new one


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


DAMAGES = {
    "truncated weights": lambda folder: truncate(folder / "policy.safetensors"),
    "flipped bit in weights": lambda folder: flip_byte(folder / "policy.safetensors"),
    "flipped bit in optimizer": lambda folder: flip_byte(folder / "optimizer.safetensors"),
    "flipped bit in state": lambda folder: flip_byte(folder / "state.json", 9),
    "missing weights": lambda folder: (folder / "policy.safetensors").unlink(),
    "missing state": lambda folder: (folder / "state.json").unlink(),
    "missing manifest": lambda folder: (folder / "manifest.json").unlink(),
    "truncated manifest": lambda folder: truncate(folder / "manifest.json"),
    "empty manifest": lambda folder: (folder / "manifest.json").write_text(""),
    "binary manifest": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "manifest of another shape": lambda folder: (folder / "manifest.json").write_text("[1]"),
    "manifest without hashes": lambda folder: (folder / "manifest.json").write_text('{"policy.safetensors": {}}'),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, how: str) -> None:
    for step in (2, 4):
        save_checkpoint(tmp_path, state(step), keep=2)
    DAMAGES[how](tmp_path / "step-00000004")
    with pytest.warns(UserWarning, match="step-00000004 is damaged"):
        assert_same(load_checkpoint(tmp_path), state(2))


def test_every_flipped_bit_of_a_manifest_is_either_harmless_or_noticed(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, state(2), keep=1)
    manifest = (folder / "manifest.json").read_bytes()
    for place in range(len(manifest)):
        flip_byte(folder / "manifest.json", place)
        assert damage(folder) or json.loads((folder / "manifest.json").read_text()) == json.loads(manifest)
        (folder / "manifest.json").write_bytes(manifest)


@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_damaged_newer_checkpoints_never_crowd_out_a_new_one(tmp_path: Path) -> None:
    """A run that starts again from scratch beside damaged checkpoints must be able to save its progress."""
    for step in (6, 8):
        save_checkpoint(tmp_path, state(step), keep=2)
        flip_byte(tmp_path / f"step-{step:08d}" / "policy.safetensors")
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, state(1), keep=2)
    assert_same(load_checkpoint(tmp_path), state(1))


def test_an_intact_checkpoint_is_never_removed_to_write_it_again(tmp_path: Path) -> None:
    """A preempted run saves a step that may just have been saved; killed meanwhile, it must not lose that one."""
    save_checkpoint(tmp_path, state(4), keep=1)

    weights = tmp_path / "step-00000004" / "policy.safetensors"
    before = weights.stat()
    save_checkpoint(tmp_path, state(4), keep=1)
    assert (weights.stat().st_ino, weights.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def edit(path: Path, **changes: object) -> None:
    """A manifest changed by hand, its own digest made anew where asked."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize("harm", [
    lambda path: (path / "manifest.json").write_text("{}"),
    lambda path: edit(path / "manifest.json", files={}, seal=fingerprint({})),
    lambda path: edit(path / "manifest.json", files={}),
    lambda path: shutil.copy(path / "policy.safetensors", path / "ema.safetensors"),
    lambda path: (path / "policy.safetensors").unlink(),
    lambda path: (path / "state.json").unlink(),
    lambda path: (shutil.rmtree(path), shutil.copytree(path.with_name("step-00000001"), path)),
    lambda path: os.replace(path / "policy.safetensors", path / "optimizer.safetensors"),
])
def test_a_checkpoint_that_is_not_what_it_was_is_passed_over(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step), keep=2)
    harm(tmp_path / "step-00000002")
    with pytest.warns(UserWarning, match=r"step-00000002 is damaged \(.+\); falling back to the one before"):
        assert_same(load_checkpoint(tmp_path), state(1))
