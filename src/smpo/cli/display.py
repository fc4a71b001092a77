"""Shows running stages: a progress bar on a terminal, otherwise lines; and one line for each finished stage.

Progress goes to stderr, results go to stdout. Texts of users are printed as they are, not read as markup.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from smpo.core.progress_lines import UNITS, ProgressLines, interval_s

RATED = ("sample", "generate", "cache")
"""Stages whose bar shows a rate. The progress of the other stages contains theirs."""
RATE_WINDOW_S = 600  # a batch of large images takes minutes on a CPU, and a rate needs three of them


class RateColumn(ProgressColumn):
    """Units per second of the bar since this call started or resumed."""

    def render(self, task: Task) -> Text:
        """The rate, or nothing as long as it is not known."""
        stage = task.fields["stage"]
        known = stage in RATED and task.speed
        return Text(f"{task.speed:.3g} {UNITS[stage]}/s" if known else "", style="progress.data.speed")


class DescriptionColumn(ProgressColumn):
    """The description that the stage gives of its progress, printed literally."""

    def render(self, task: Task) -> Text:
        """The description, dimmed."""
        return Text(task.description, style="dim")


def is_terminal() -> bool:
    """Whether stderr is a terminal that can show a moving bar."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Display:
    """Bars or lines of progress on stderr; silent on all but the main process."""

    def __init__(self) -> None:
        from smpo.core.library_output import quieten_libraries
        from smpo.core.processes import this_process

        quieten_libraries()
        self.is_shown, self.moves = this_process().is_main, is_terminal()
        self.every_s = interval_s()
        self.console = Console(
            stderr=True, quiet=not self.is_shown, highlight=False, markup=False, force_terminal=self.moves
        )
        self.bars = Progress(
            TextColumn("{task.fields[stage]:>9}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), RateColumn(), DescriptionColumn(), console=self.console,
            transient=True, speed_estimate_period=RATE_WINDOW_S, redirect_stdout=False,
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[..., None]]:
        """A callback (done, total) or (what, done, total) that moves the stage's bar."""
        if not self.is_shown:
            yield lambda *values: None
            return
        if not self.moves:
            with ProgressLines(name, every_s=self.every_s) as lines:
                yield lines
            return
        with self.bars:
            task = self.bars.add_task("", stage=name, total=None)
            try:
                yield self._mover(task)
            finally:
                self.bars.remove_task(task)

    def _mover(self, task: TaskID) -> Callable[..., None]:
        last = 0

        def progress(*values: Any) -> None:  # (done, total) or (what, done, total); total may be None
            nonlocal last
            what, done, total = values if len(values) == 3 else ("", *values)
            if done < last:
                self.bars.reset(task)  # the next of several image sets: its own time and rate
            last = done
            self.bars.update(task, description=what, completed=done, total=total)

        return progress

    def warn(self, subject: str, text: str) -> None:
        """Print a warning on stderr."""
        self.console.print(Text(f"  warning: {subject}: {text}"), soft_wrap=True)

    def done(self, name: str, result: str, seconds: float) -> None:
        """The finished stage's line."""
        if self.is_shown:
            print(f"{name:>9} {seconds:6.1f} s  {result}", flush=True)
