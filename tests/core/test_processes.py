"""Processes that share work: who does what, and what the living see when one dies."""

import os
import time
from pathlib import Path

import pytest

from smpo.core import processes
from smpo.core.errors import ConfigError, ProcessError
from smpo.core.processes import Process, main_first, shard, this_process, wait_for_all
from tests.ranks import ranked


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shards_are_disjoint_and_make_the_whole(world_size: int) -> None:
    items = list("abcdef")
    shares = [shard(items, Process(rank, world_size)) for rank in range(world_size)]
    assert sorted(sum(shares, [])) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_without_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert this_process() == Process(0, 1) and this_process().is_main
    assert shard("abc") == ["a", "b", "c"]
    wait_for_all("do anything")


@pytest.mark.parametrize(("environment", "message"), [
    ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must lie in [0, WORLD_SIZE), got RANK=2 and WORLD_SIZE=2; start with"),
    ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number >= 0, got 'two'; correct or unset it"),
    ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be a whole number >= 0, got '-1'; correct or unset it"),
])
def test_impossible_places_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        this_process()
    assert str(refused.value).startswith(message)


def test_several_processes_without_an_address_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but .*MASTER_ADDR.*; start with `accelerate launch`"):
        wait_for_all("start")


def test_no_process_passes_before_the_last_has_come(tmp_path: Path) -> None:
    """Three processes, three rounds: whoever passes round k finds all three files of round k."""

    def work() -> None:
        rank = this_process().rank
        for turn in range(3):
            time.sleep(0.2 * ((rank + turn) % 3))
            (tmp_path / f"{turn}-{rank}").touch()
            wait_for_all("touch a file")
            assert len(list(tmp_path.glob(f"{turn}-*"))) == 3

    assert ranked(work, 3) == [0, 0, 0]


def test_the_main_process_goes_first_and_nobody_leaves_before_all_are_through(tmp_path: Path) -> None:
    def work() -> None:
        rank = this_process().rank

        def open_folder() -> int:
            if rank != 0:
                assert (tmp_path / "0").exists()
            time.sleep(0.2)
            (tmp_path / str(rank)).touch()
            return rank

        assert main_first("open the folder", open_folder) == rank
        assert len(list(tmp_path.iterdir())) == 3

    assert ranked(work, 3) == [0, 0, 0]


def test_the_death_of_one_ends_the_wait_of_the_others_with_a_message(tmp_path: Path) -> None:
    def work() -> None:
        rank = this_process().rank
        wait_for_all("start")
        if rank == 1:
            os.kill(os.getpid(), 9)
        try:
            wait_for_all("make their images")
        except ProcessError as error:
            (tmp_path / str(rank)).write_text(str(error))

    started = time.monotonic()
    assert ranked(work, 3) == [0, -9, 0]
    assert time.monotonic() - started < 30
    for rank in (0, 2):
        message = (tmp_path / str(rank)).read_text()
        assert message.startswith(f"process {rank} of 3 waited for the others to make their images, and one of them ")
        assert "\n" not in message


def test_a_process_that_never_comes_ends_the_meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process ends before it first waits; the first does not wait longer than the meeting's limit."""
    monkeypatch.setattr(processes, "MEETING", processes.timedelta(seconds=2))

    def work() -> None:
        if this_process().rank == 1:
            return
        with pytest.raises(ProcessError, match="one of them has ended or cannot be reached"):
            wait_for_all("start")

    assert ranked(work, 2) == [0, 0]


def test_training_may_make_its_own_group_afterwards() -> None:
    def work() -> None:
        wait_for_all("start")
        assert not processes.dist.is_initialized()
        processes.dist.init_process_group("gloo")
        processes.dist.barrier()
        wait_for_all("train")

    assert ranked(work, 2) == [0, 0]
