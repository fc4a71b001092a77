"""Digests of files: right, remembered while the file is the same, and never in the way."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smpo.core import digests
from smpo.core.digests import FILE, cache_folder, file_digest, file_digests, files_digest, hash_file
from tests.training.outcomes import exit_code

OLD = 1_600_000_000  # s; long settled


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMPO_CACHE", str(tmp_path / "memory"))
    return tmp_path / "memory" / FILE


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    seen: list[Path] = []

    def noting(path: Path) -> str:
        seen.append(path)
        return hash_file(path)

    monkeypatch.setattr(digests, "hash_file", noting)
    return seen


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as settled: the change time, which `os.utime` cannot set back, included."""
    now = time.time
    monkeypatch.setattr(digests.time, "time", lambda: now() + 10)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_digest_is_the_sha256_and_is_remembered(tmp_path: Path, read: list[Path], settled: None) -> None:
    """The published SHA-256 of "abc" (FIPS 180-2)."""
    path = write(tmp_path / "x", b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert [file_digest(path), file_digest(path)] == [expected] * 2
    assert read == [path]


def test_another_process_finds_it(tmp_path: Path, read: list[Path], settled: None) -> None:
    path = write(tmp_path / "x", b"abc")
    assert exit_code(lambda: file_digest(path) and None) == 0
    file_digest(path)
    assert read == []


@pytest.mark.parametrize("change", [
    lambda path: path.write_bytes(b"abd"), lambda path: os.utime(path, (OLD, OLD)), lambda path: path.chmod(0o600),
    lambda path: os.replace(write(path.with_name("new"), b"abd"), path),
])
def test_whatever_may_have_changed_is_read_again(
    tmp_path: Path, read: list[Path], settled: None, change: Callable[[Path], None]
) -> None:
    path = write(tmp_path / "x", b"abc")
    file_digest(path)
    change(path)
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(read) == 2


def test_a_file_of_just_now_is_not_remembered(tmp_path: Path, read: list[Path]) -> None:
    """It could change once more within the same tick of the file system's clock."""
    path = write(tmp_path / "x", b"abc")
    file_digest(path)
    file_digest(path)
    assert len(read) == 2


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x", b"abc")

    def changing(path: Path) -> str:
        digest = hash_file(path)
        path.write_bytes(b"longer")
        return digest

    monkeypatch.setattr(digests, "hash_file", changing)
    file_digest(path)
    monkeypatch.undo()
    os.environ["SMPO_CACHE"] = str(tmp_path / "memory")
    assert file_digest(path) == hashlib.sha256(b"longer").hexdigest()


def damage_rows(memory: Path) -> None:
    with sqlite3.connect(memory) as connection:
        connection.execute("UPDATE digests SET digest = 'f' || substr(digest, 2)")


@pytest.mark.parametrize("harm", [
    damage_rows, lambda memory: memory.write_bytes(b"no database at all, but long enough to look like one" * 40),
    lambda memory: memory.write_bytes(memory.read_bytes()[:700]), lambda memory: memory.write_bytes(b""),
    lambda memory: memory.unlink(), lambda memory: (memory.unlink(), memory.mkdir()),
    lambda memory: (memory.unlink(), memory.parent.rmdir(), memory.parent.write_text("a file")),
])
def test_a_damaged_memory_changes_nothing(
    tmp_path: Path, memory: Path, settled: None, harm: Callable[[Path], None]
) -> None:
    path = write(tmp_path / "x", b"abc")
    expected = file_digest(path)
    harm(memory)
    assert [file_digest(path) for _ in range(3)] == [expected] * 3


def test_a_locked_memory_is_waited_for_and_then_left(
    tmp_path: Path, memory: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write(tmp_path / "x", b"abc"), write(tmp_path / "y", b"abc")
    expected = file_digest(first)
    monkeypatch.setattr(digests, "WAIT_S", 0.05)
    with sqlite3.connect(memory) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert file_digests([first, second]) == dict.fromkeys([first, second], expected)


def test_many_at_once_do_not_disturb_each_other(tmp_path: Path, settled: None) -> None:
    files = [write(tmp_path / str(i), str(i % 7).encode()) for i in range(40)]
    with ThreadPoolExecutor(6) as pool:
        for digests in pool.map(lambda _: file_digests(files), range(12)):
            assert list(digests) == files
            assert all(digests[file] == hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "memory"
    monkeypatch.delenv("SMPO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "smpo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "smpo"


def test_of_several_files_names_order_contents_and_absence_count(tmp_path: Path) -> None:
    a, b, gone = write(tmp_path / "a", b"1"), write(tmp_path / "b", b"2"), tmp_path / "c"
    one = files_digest([a, b], root=tmp_path)
    others = [files_digest(files, root=tmp_path) for files in ([b, a], [a], [a, b, gone])]
    assert len({one, *others}) == 4
    os.utime(a, (OLD, OLD))
    assert files_digest([a, b], root=tmp_path) == one
    write(b, b"3")
    assert files_digest([a, b], root=tmp_path) != one
