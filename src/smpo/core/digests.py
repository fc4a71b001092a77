"""SHA-256 of files. `hash_file` reads the file; `file_digest` keeps digests in a database of the user's cache folder.

A stored digest is used only while device, inode, size, modification time and change time of the file are the same, to
the nanosecond. So a large model is read once, and a file that was replaced is read again. A flipped bit on the disk
changes none of these: use `hash_file` where the content must be checked at every read.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SETTLED_S = 2.0
"""A file that changed more recently could change again with the same times: the coarsest file systems count in 2 s."""
THREADS = 8     # hashing releases the interpreter lock
WAIT_S = 5.0    # for another process that writes to the database
FILE = "digests.sqlite"
TABLE = "CREATE TABLE IF NOT EXISTS digests (device, inode, state, digest, proof, PRIMARY KEY (device, inode))"

State = tuple[str, str, str]
"""Device, inode, and size with times: as text, because inodes may exceed sqlite's integers."""


def cache_folder() -> Path:
    """The user's cache folder of smpo: the environment's `SMPO_CACHE`, else `smpo` in the XDG cache folder."""
    given = os.environ.get("SMPO_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "smpo"


def hash_file(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex; the file is read in pieces, so it may be larger than the memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of each file, in hex; several threads read."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(hash_file, paths))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, from the database while the file is the same (see the module's text)."""
    return file_digests([path])[path]


def file_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """`file_digest` of many files; several threads read those that are not in the database.

    If the database cannot be read or written, all files are read and nothing is stored.

    Raises:
        OSError: a file cannot be read.
    """
    paths = list(dict.fromkeys(paths))
    states = [_state(path) for path in paths]
    known = _stored(states)
    unknown = [path for path, state in zip(paths, states, strict=True) if state not in known]
    fresh = dict(zip(unknown, hash_files(unknown), strict=True))
    settled = {state: fresh[path] for path, state in zip(paths, states, strict=True)
               if path in fresh and _is_settled(path, state)}
    _store(settled)
    return {path: fresh.get(path) or known[state] for path, state in zip(paths, states, strict=True)}


def files_digest(files: Iterable[Path], *, root: Path) -> str:
    """SHA-256, in hex, of the names relative to `root` and the contents of `files`; a file may be missing."""
    files = list(files)
    digests = file_digests(file for file in files if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(root) if file.is_relative_to(root) else file
        digest.update(f"{digests.get(file, 'missing')} {name}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _state(path: Path) -> State:
    about = path.stat()
    return str(about.st_dev), str(about.st_ino), f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"


def _is_settled(path: Path, state: State) -> bool:
    """Whether the file did not change while it was read, and for SETTLED_S before."""
    about = path.stat()
    age = time.time() - max(about.st_mtime, about.st_ctime)
    return age > SETTLED_S and _state(path) == state


def _proof(state: State, digest: str) -> str:
    """Check sum of a row of the database, by which a damaged row is recognised."""
    return hashlib.sha256(" ".join((*state, digest)).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """The open database; its default journal mode works on network file systems that have locks."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(folder / FILE, timeout=WAIT_S)) as connection:
        connection.execute(TABLE)
        yield connection


def _stored(states: Sequence[State]) -> dict[State, str]:
    """State -> stored digest, of the files that have one."""
    query = "SELECT state, digest, proof FROM digests WHERE device = ? AND inode = ?"
    digests: dict[State, str] = {}
    try:
        with _database() as database:
            for state in states:
                row = database.execute(query, state[:2]).fetchone()
                if row and row[0] == state[2] and row[2] == _proof(state, str(row[1])):
                    digests[state] = str(row[1])
    except (sqlite3.Error, OSError) as error:
        _delete_if_damaged(error)
        return {}
    return digests


def _store(digests: Mapping[State, str]) -> None:
    if not digests:
        return
    rows = [(*state, digest, _proof(state, digest)) for state, digest in digests.items()]
    try:
        with _database() as database, database:  # one transaction
            database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", rows)
    except (sqlite3.Error, OSError) as error:
        _delete_if_damaged(error)


def _delete_if_damaged(error: Exception) -> None:
    """Delete a file that is no database, so that the next call makes a new one."""
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        with contextlib.suppress(OSError):
            (cache_folder() / FILE).unlink(missing_ok=True)
