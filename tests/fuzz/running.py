"""One call of the real command line inside this process: argv in; exit code, output, time and memory out."""

import contextlib
import faulthandler
import io
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from smpo import cli

LIMIT_S = 15.0  # of processor time a command; the slowest legitimate one takes a second
WAITS = 3  # times as much by the clock, for the machine may be busy
SPARE_MIB = 2500  # address space that a command may take on top of what is there
GRACE_S = 60.0  # beyond that in C code that no signal handler can interrupt: the process is ended, with a trace


class Hang(BaseException):
    """A command that has not come back; no `except Exception` of the tested code may catch it."""


@dataclass(frozen=True)
class Result:
    """What a command did.

    Attributes:
        argv: its arguments.
        code: exit code; None where it raised or hung.
        out: standard output.
        err: standard error.
        crash: the exception that came out of `main`, with its innermost frame in the package; "" without one.
        seconds: how long it took.
    """

    argv: tuple[str, ...]
    code: int | None
    out: str
    err: str
    crash: str
    seconds: float

    @property
    def error(self) -> str:
        """The one-line error, or an empty string."""
        return next((line for line in reversed(self.err.splitlines()) if line.startswith("error:")), "")


def run(argv: Sequence[str], cwd: Path, *, home: Path, limit_s: float = LIMIT_S) -> Result:
    """The result of `smpo ARGV` in the folder `cwd`, with `home` as the user's home."""
    out, err, crash, code = io.StringIO(), io.StringIO(), "", None
    started = time.perf_counter()
    with _inside(cwd, home, argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with _time_limit(limit_s), _memory_limit():
                cli.main()
            code = 0
        except SystemExit as ended:
            code = _exit_code(ended.code)
        except BaseException as error:  # whatever comes out of main is what a user sees as a traceback
            crash = _described(error)
    return Result(tuple(argv), code, out.getvalue(), err.getvalue(), crash, time.perf_counter() - started)


def _exit_code(code: Any) -> int:
    return 0 if code is None else code if isinstance(code, int) else 1


def _described(error: BaseException) -> str:
    """Type, first line and innermost frame of the package."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/smpo/" in frame.filename]
    where = f" at {frames[-1].filename.partition('/src/')[2]}:{frames[-1].lineno}" if frames else ""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first[:160]}{where}"


@contextlib.contextmanager
def _inside(cwd: Path, home: Path, argv: Sequence[str]) -> Iterator[None]:
    before, handlers = Path.cwd(), {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    os.chdir(cwd)
    environment = {"HOME": str(home), "COLUMNS": "120"}
    try:
        with (
            mock.patch.object(sys, "argv", ["smpo", *argv]),
            mock.patch.dict(os.environ, environment),
            warnings.catch_warnings(),
        ):
            yield
    finally:
        os.chdir(before)
        for one, handler in handlers.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang(f"no end after {limit_s:.0f} s")

    clocks = {signal.SIGALRM: (signal.ITIMER_REAL, WAITS * limit_s), signal.SIGPROF: (signal.ITIMER_PROF, limit_s)}
    before = {one: signal.signal(one, stop) for one in clocks}
    faulthandler.dump_traceback_later(WAITS * limit_s + GRACE_S, exit=True, file=sys.__stderr__)
    for timer, seconds in clocks.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _ in clocks.values():
            signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()
        for one, handler in before.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def _memory_limit() -> Iterator[None]:
    """Let what takes too much memory end in a MemoryError instead of taking the machine with it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (SPARE_MIB << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
