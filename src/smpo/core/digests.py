"""SHA-256 of files. `hash_file` reads the file; `file_digest` remembers what it has read, across processes.

A remembered digest counts only while device, inode, size, modification and change time of the file are what they were,
to the nanosecond. So a copy is read once, a replaced file is read anew, and a large model costs its reading once.
Damage that the file system does not know of (a flipped bit on the disk) changes none of these: what has to be proven
at every read is hashed with `hash_file`.
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
"""A file changed more recently may change again without another time: 2 s is the coarsest clock of a file system."""
THREADS = 8     # hashing releases the interpreter lock
WAIT_S = 5.0    # for another process that writes to the memory
FILE = "digests.sqlite"
TABLE = "CREATE TABLE IF NOT EXISTS digests (device, inode, state, digest, proof, PRIMARY KEY (device, inode))"

State = tuple[str, str, str]
"""Device, inode, and the rest of what has to be the same: all as text, for inodes may exceed sqlite's integers."""


def cache_folder() -> Path:
    """Where this user's remembered digests lie: `SMPO_CACHE`, else `smpo` in the folder of the XDG standard."""
    given = os.environ.get("SMPO_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "smpo"


def hash_file(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex; read in pieces, so any size works."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of each file, in hex, read by several threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(hash_file, paths))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, remembered as long as the file is the same (see the module's text)."""
    return file_digests([path])[path]


def file_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """`file_digest` of many files; those that are not remembered are read by several threads.

    Where the memory cannot be read or written, nothing is remembered and nothing fails.

    Raises:
        OSError: a file cannot be read.
    """
    paths = list(dict.fromkeys(paths))
    states = [_state(path) for path in paths]
    known = _recall(states)
    unknown = [path for path, state in zip(paths, states, strict=True) if state not in known]
    fresh = dict(zip(unknown, hash_files(unknown), strict=True))
    settled = {state: fresh[path] for path, state in zip(paths, states, strict=True)
               if path in fresh and _is_settled(path, state)}
    _remember(settled)
    return {path: fresh.get(path) or known[state] for path, state in zip(paths, states, strict=True)}


def files_digest(files: Iterable[Path], *, root: Path) -> str:
    """SHA-256, in hex, of the names below `root` and the contents of `files`, in order; "missing" is a content."""
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
    """Whether the file is still as it was before it was read, and has been so for a while."""
    about = path.stat()
    age = time.time() - max(about.st_mtime, about.st_ctime)
    return age > SETTLED_S and _state(path) == state


def _proof(state: State, digest: str) -> str:
    """Of a row of the memory: a damaged row is none."""
    return hashlib.sha256(" ".join((*state, digest)).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _memory() -> Iterator[sqlite3.Connection]:
    """The memory, open; in the default journal mode, which works on network file systems where they have locks."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(folder / FILE, timeout=WAIT_S)) as connection:
        connection.execute(TABLE)
        yield connection


def _recall(states: Sequence[State]) -> dict[State, str]:
    """What is remembered of these files."""
    query = "SELECT state, digest, proof FROM digests WHERE device = ? AND inode = ?"
    found: dict[State, str] = {}
    try:
        with _memory() as memory:
            for state in states:
                row = memory.execute(query, state[:2]).fetchone()
                if row and row[0] == state[2] and row[2] == _proof(state, str(row[1])):
                    found[state] = str(row[1])
    except (sqlite3.Error, OSError) as error:
        _forget_if_damaged(error)
        return {}
    return found


def _remember(digests: Mapping[State, str]) -> None:
    if not digests:
        return
    rows = [(*state, digest, _proof(state, digest)) for state, digest in digests.items()]
    try:
        with _memory() as memory, memory:  # one transaction
            memory.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", rows)
    except (sqlite3.Error, OSError) as error:
        _forget_if_damaged(error)


def _forget_if_damaged(error: Exception) -> None:
    """Delete a memory that is no database, so that the next call begins another one."""
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        with contextlib.suppress(OSError):
            (cache_folder() / FILE).unlink(missing_ok=True)
