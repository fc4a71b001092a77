"""Digests of source files are of their content."""

import os
import shutil
from pathlib import Path

from smpo.data.files import fingerprint_files


def test_a_copied_or_touched_file_is_the_same_and_a_replaced_one_is_not(tmp_path: Path):
    """In the middle of a large file, with the same length and the same times."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    file = first / "a"
    file.write_bytes(b"x" * 200_000)
    before = fingerprint_files([file], root=first)
    os.utime(file, (1, 1))
    shutil.copytree(first, second)
    assert fingerprint_files([file], root=first) == fingerprint_files([second / "a"], root=second) == before
    file.write_bytes(b"x" * 100_000 + b"y" + b"x" * 99_999)
    os.utime(file, (1, 1))
    assert fingerprint_files([file], root=first) != before
