"""Locks on folders: taking turns, and one writer a folder.

A lock is a POSIX record lock on a small file: the kernel ends it with its process, however that ends, and forked loader
workers do not inherit it. On a network file system the server ends it when it no longer hears of the holder's machine.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from smpo.core.errors import BusyError

LOCK = ".lock"
POLL_S = 1.0
PATIENCE_S = 2.0  # whoever only looks whether the work is done holds the lock for less
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
TAKEN = {errno.EACCES, errno.EAGAIN}


@contextlib.contextmanager
def exclusive(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until no other process works at `folder`; the lock file lies beside it.

    `waiting` is called every second. Where the file system has no locks, all work at once.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as file:
        while _take(file) is False:
            waiting()
            time.sleep(POLL_S)
        yield


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Be the only process that writes into `folder`; its lock file `.lock` says who that is.

    Where the file system has no locks, a warning says so and the work goes on. Whoever may not write there needs no
    lock: a complete artefact can be found in a folder that can only be read.

    Raises:
        BusyError: another process writes there; it names machine, process id and since when.
    """
    file = _opened(folder)
    if file is None:
        yield
        return
    with file:
        end = time.monotonic() + PATIENCE_S
        while (taken := _take(file)) is False:
            if time.monotonic() > end:
                raise BusyError(
                    f"{folder} is being written by {_holder(file)}; wait for it, end it, or choose another folder"
                )
            time.sleep(PATIENCE_S / 20)
        if taken is None:
            warnings.warn(
                f"the file system of {folder} has no locks: do not start a second command that writes there",
                stacklevel=3,
            )
        _sign(file)
        yield
        file.truncate(0)  # nobody writes any more; whoever is killed leaves his name, and no lock


def _opened(folder: Path) -> IO[str] | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / LOCK, "a+")
    except OSError as error:
        if error.errno in READ_ONLY:
            return None
        raise


def _take(file: IO[str]) -> bool | None:
    """Whether the lock is ours now; None where the file system has none."""
    try:
        fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in WITHOUT_LOCKS:
            return None
        if error.errno in TAKEN:
            return False
        raise
    return True


def _sign(file: IO[str]) -> None:
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}))
    file.flush()


def _holder(file: IO[str]) -> str:
    """Who holds the lock, as far as its file says."""
    file.seek(0)
    try:
        about = json.loads(file.read())
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
