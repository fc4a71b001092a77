"""Locks on folders: processes take turns, or one process is the only writer.

A lock is a POSIX record lock on a small file. The kernel releases it when its process ends, and forked workers do not
inherit it. On a network file system the server releases it when it loses contact with the machine of the process.
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
PATIENCE_S = 2.0  # a process that only checks whether the work is done holds the lock for less
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
TAKEN = {errno.EACCES, errno.EAGAIN}


@contextlib.contextmanager
def exclusive(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until no other process holds the lock of `folder`, whose file lies beside it, and hold it.

    `waiting` is called every second. On a file system without locks nothing is waited for.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as file:
        while _take(file) is False:
            waiting()
            time.sleep(POLL_S)
        yield


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; its file `.lock` names the process that holds it.

    On a file system without locks the work goes on, with a warning. In a folder that can only be read no lock is
    needed: a complete artefact there can be used.

    Raises:
        BusyError: another process holds the lock; the message names machine, process id and time.
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
        file.truncate(0)  # a process that is killed leaves its name here, but no lock


def _opened(folder: Path) -> IO[str] | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / LOCK, "a+")
    except OSError as error:
        if error.errno in READ_ONLY:
            return None
        raise


def _take(file: IO[str]) -> bool | None:
    """Whether this process now has the lock; None if the file system has no locks."""
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
    """The process that holds the lock, as far as the file names it."""
    file.seek(0)
    try:
        about = json.loads(file.read())
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
