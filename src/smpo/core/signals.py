"""Signals that ask a process to end: Ctrl-C (SIGINT), and what schedulers send before they kill (SIGTERM, SIGUSR1)."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from smpo.core.errors import Stopped

INTERRUPTED = 130  # what shells report of a program that Ctrl-C has ended
PREEMPTED = 75     # EX_TEMPFAIL: "try again"; also after SIGUSR1, which Slurm sends ahead of time
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
GO_ON = "run the same command to go on"
SAME_PRESS_S = 1.0  # a launcher passes the terminal's SIGINT on to its processes, which have it already


def exit_code(number: int) -> int:
    """The exit code after signal `number`."""
    return INTERRUPTED if number == signal.SIGINT else PREEMPTED


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Turn the signals into `Stopped` at once, wherever the program is: what is finished stays on disk."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(exit_code(number), f"stopped; {GO_ON}")

    with _handled(stop):
        yield


@contextlib.contextmanager
def remembered(notice: str = "") -> Iterator[list[int]]:
    """A list of the signals that have come, so that the work can end where it is whole.

    The first prints `notice` to stderr, if it is Ctrl-C. A second Ctrl-C does not wait.

    Raises:
        Stopped: on the second Ctrl-C.
    """
    received: list[int] = []
    pressed: list[float] = []
    apart = SAME_PRESS_S if os.environ.get("WORLD_SIZE", "1") != "1" else 0.0

    def remember(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if pressed and time.monotonic() - pressed[-1] > apart:
                raise Stopped(INTERRUPTED, f"stopped at once, at the last checkpoint; {GO_ON}")
            if notice and not pressed:
                os.write(2, f"{notice}\n".encode())  # a print here could meet one that the signal has interrupted
            pressed.append(time.monotonic())
        received.append(number)

    with _handled(remember):
        yield received


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C in here, and in the processes that are started here, for good."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if _is_main_thread() else None
    try:
        yield
    finally:
        if _is_main_thread():
            signal.signal(signal.SIGINT, before)


def left_to_parent(worker: int = 0) -> None:
    """Ignore Ctrl-C in a worker process: the terminal sends it to all, and the parent ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _handled(handler: "signal._HANDLER") -> Iterator[None]:
    if not _is_main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in ENDING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _is_main_thread() -> bool:
    """Whether this thread may set handlers: only the main one may."""
    return threading.current_thread() is threading.main_thread()
