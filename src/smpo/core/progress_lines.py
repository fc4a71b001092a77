"""Progress without a terminal (nohup, Slurm, CI, a pipe): a line on stderr every half minute."""

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from smpo.core.errors import ConfigError

Progress = Callable[[int, int | None], None]
"""A stage's progress function: (units done, units in all or None) -> nothing. The stage calls it after each unit."""

INTERVAL = "SMPO_PROGRESS_SECONDS"
DEFAULT_S = 30.0
UNITS = {"sample": "images", "generate": "images", "cache": "pairs", "pairs": "rows", "score": "pairs",
         "invert": "examples", "train": "steps", "evaluate": "images", "audit": "images"}
"""Stage -> unit of its progress."""


def interval_s() -> float:
    """Seconds between two lines, by the environment variable SMPO_PROGRESS_SECONDS; at 0 no line is printed.

    Raises:
        ConfigError: the variable is no number >= 0.
    """
    given = os.environ.get(INTERVAL, "").strip() or str(DEFAULT_S)
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"{INTERVAL} must be a number of seconds >= 0, got '{given}'; correct or unset it")
    return seconds


class ProgressLines:
    """Prints lines about one stage: at its start, at its end, and every `every_s` seconds between.

    It is called as the progress function of the stage: with (done, total) or (what, done, total).
    """

    def __init__(
        self, stage: str, *, every_s: float | None = None, to: TextIO | None = None, before: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._head, self._unit = f"{before}{stage}:", UNITS.get(stage, "done")
        self._every_s = interval_s() if every_s is None else every_s
        self._to, self._clock = to, clock
        self._ended = threading.Event()
        self._what, self._done, self._moves = "", 0, False
        self._total: int | None = None
        self._from = (clock(), 0)  # time and count at the first call for the present piece of work
        self._began = clock()

    def __enter__(self) -> Self:
        if self._every_s:
            self._print("started")
            threading.Thread(target=self._tick, name="progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._every_s:
            self._print(f"{'ended' if error else 'done'} after {duration(self._clock() - self._began)}")

    def __call__(self, *values: str | int | None) -> None:
        """Take (done, total) or (what, done, total)."""
        *what, done, total = values
        assert isinstance(done, int) and not isinstance(total, str)
        if not self._moves or done < self._done:  # a new piece of work, with its own rate
            self._from = (self._clock(), done)
        self._what, self._done, self._total, self._moves = "".join(map(str, what)), done, total, True

    def line(self) -> str:
        """Count, total, rate and remaining time, as far as they are known."""
        since, first = self._from
        seconds, moved = self._clock() - since, self._done - first
        rate = moved / seconds if moved > 0 and seconds > 0 else None
        parts = []
        if not self._moves:
            parts.append(f"running for {duration(self._clock() - self._began)}")
        else:
            parts.append(f"{self._done}/{'?' if self._total is None else self._total} {self._unit}")
        if rate is not None:
            parts.append(f"{rate:.3g} {self._unit}/s")
            if self._total is not None:
                parts.append(f"{duration((self._total - self._done) / rate)} left")
        return ", ".join(parts) + (f"  {self._what}" if self._what else "")

    def _tick(self) -> None:
        while not self._ended.wait(self._every_s):
            self._print(self.line())

    def _print(self, text: str) -> None:
        out = self._to or sys.stderr
        try:
            out.write(f"{self._head} {text}\n")
            out.flush()
        except (OSError, ValueError):  # nobody reads the stream, or it is closed: the work goes on
            self._ended.set()


def duration(seconds: float) -> str:
    """Such as "45 s", "12 min" or "3 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
