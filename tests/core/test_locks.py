"""Locks: one writer a folder, who is named; whoever dies leaves none."""

import os
import time
from pathlib import Path

import pytest

from smpo.core import locks
from smpo.core.errors import BusyError
from smpo.core.locks import exclusive, sole_writer
from tests.training.outcomes import die, start_child


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.2)


def hold(folder: Path) -> None:
    with sole_writer(folder):
        (folder / "held").touch()
        time.sleep(60)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_second_writer_is_refused_in_one_line_that_names_the_first(tmp_path: Path) -> None:
    child = start_child(lambda: hold(tmp_path))
    wait_for(tmp_path / "held")
    with pytest.raises(BusyError) as error, sole_writer(tmp_path):
        raise AssertionError("both write")
    message = str(error.value)
    assert message.startswith(f"{tmp_path} is being written by process {child.pid} on {os.uname().nodename} since 20")
    assert message.endswith("; wait for it, end it, or choose another folder") and "\n" not in message
    child.kill()
    child.join()
    with sole_writer(tmp_path):  # the kernel has ended the lock of the killed one
        pass


def test_the_lock_of_a_killed_process_is_free_though_its_workers_live(tmp_path: Path) -> None:
    """A loader's worker is forked while its training holds the lock, and may outlive it by seconds."""
    def work() -> None:
        with sole_writer(tmp_path):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            (tmp_path / "held").touch()
            die()

    child = start_child(work)
    wait_for(tmp_path / "held")
    child.join()
    with sole_writer(tmp_path):
        pass


def test_it_is_free_after_the_work_and_after_an_error(tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        pass
    with pytest.raises(RuntimeError), sole_writer(tmp_path):
        raise RuntimeError("stop")
    with sole_writer(tmp_path / "deep" / "er"):
        assert os.listdir(tmp_path / "deep" / "er") == [locks.LOCK]


@pytest.mark.parametrize("content", ["", "no json", "[]", "{}", "\x00"])
def test_a_lock_file_of_any_content_is_no_obstacle(tmp_path: Path, content: str) -> None:
    (tmp_path / locks.LOCK).write_text(content)
    with sole_writer(tmp_path):
        pass


def test_a_folder_that_can_only_be_read_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root nothing is forbidden, so the file system's refusal is made."""
    def refused(*_: object, **__: object) -> None:
        raise OSError(locks.errno.EROFS, "Read-only file system")

    monkeypatch.setattr("builtins.open", refused)
    with sole_writer(tmp_path):
        pass


def test_without_locks_a_warning_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", unsupported)
    with pytest.warns(UserWarning, match="has no locks: do not start a second command"), sole_writer(tmp_path):
        pass


def test_turns_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL_S", 0.02)

    def work() -> None:
        with exclusive(tmp_path / "x"):
            (tmp_path / "held").touch()
            time.sleep(0.3)
            (tmp_path / "left").touch()

    child, waits = start_child(work), []
    wait_for(tmp_path / "held")
    with exclusive(tmp_path / "x", lambda: waits.append(1)):
        assert (tmp_path / "left").exists() and waits
    child.join()
