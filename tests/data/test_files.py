"""Digests of source files are cheap and notice what they should."""

import os
from pathlib import Path

from smpo.data.files import fingerprint_files


def test_fingerprint_reads_only_the_ends(tmp_path: Path):
    """A change in the middle of a large file shows by its time; of a small file by its bytes alone."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x" * 1000)
    large.write_bytes(b"x" * 200_000)
    before = [fingerprint_files([file], root=tmp_path) for file in (small, large)]
    for file in (small, large):
        os.utime(file, (1, 1))
    after = [fingerprint_files([file], root=tmp_path) for file in (small, large)]
    assert before[0] == after[0] and before[1] != after[1]
