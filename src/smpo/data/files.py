"""Digests of source files."""

from collections.abc import Iterable
from pathlib import Path

from smpo.core.digests import files_digest


def fingerprint_files(files: Iterable[Path], *, root: Path) -> str:
    """Digest of the names below `root` and the contents of `files`; a missing file counts as that.

    Every byte is read once and then remembered (`smpo.core.digests`), so a file that was copied, moved with its folder
    or touched is the same, and one whose bytes were replaced is not, whatever its length and times. On one core SHA-256
    takes 0.7 s a GB and up to eight threads read: 335 GB in 645 shards take as long as the disk needs for them, which
    `smpo pairs` needs a second time to check the images; from then on a look at each file's state.
    """
    return files_digest(files, root=root)
