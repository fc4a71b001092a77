"""Signals that ask a process to end: Ctrl-C (SIGINT), and SIGTERM or SIGUSR1 from schedulers before they kill."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from smpo.core.errors import Stopped

INTERRUPTED = 130  # the exit code that shells give after Ctrl-C
PREEMPTED = 75     # EX_TEMPFAIL: "try again"; also after SIGUSR1, which Slurm can send before the time limit
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
GO_ON = "run the same command to go on"
SAME_PRESS_S = 1.0  # a launcher repeats the terminal's SIGINT to its processes, which got it already


def exit_code(number: int) -> int:
    """The exit code after signal `number`."""
    return INTERRUPTED if number == signal.SIGINT else PREEMPTED


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Raise `Stopped` as soon as a signal comes; finished files stay on disk."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(exit_code(number), f"stopped; {GO_ON}")

    with _handled(stop):
        yield


@contextlib.contextmanager
def remembered(notice: str = "") -> Iterator[list[int]]:
    """A list of the signals received, so that the work can end at a good place, such as after a step.

    The first Ctrl-C prints `notice` to stderr. The second ends the work at once.

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
                os.write(2, f"{notice}\n".encode())  # print() could be called while the signal interrupts a print
            pressed.append(time.monotonic())
        received.append(number)

    with _handled(remember):
        yield received


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C inside; processes that are started inside ignore it always."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if _is_main_thread() else None
    try:
        yield
    finally:
        if _is_main_thread():
            signal.signal(signal.SIGINT, before)


def left_to_parent(worker: int = 0) -> None:
    """Ignore Ctrl-C in a worker process: the terminal sends it to all processes, and the parent ends its workers."""
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
