"""What the terminal shows: one progress bar for the running stage, one line for each finished one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

UNITS = {"sample": "images", "generate": "images", "cache": "pairs"}
"""Stage -> what its bar counts; the others say their rate themselves."""
RATE_WINDOW_S = 600  # a batch of large images takes minutes on a CPU, and a rate needs three of them


class RateColumn(ProgressColumn):
    """The bar's units a second, of what was done since the start or resumption of this call."""

    def render(self, task: Task) -> Text:
        """The rate, or nothing as long as it is not known."""
        unit = UNITS.get(task.fields["stage"])
        known = unit and task.speed
        return Text(f"{task.speed:.3g} {unit}/s" if known else "", style="progress.data.speed")


class Display:
    """Progress on stderr-like rich consoles; silent on all but the main process."""

    def __init__(self) -> None:
        from smpo.processes import this_process

        self.console = Console(quiet=not this_process().is_main, highlight=False)
        self.bars = Progress(
            TextColumn("{task.fields[stage]:>9}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), RateColumn(), TextColumn("[dim]{task.description}"), console=self.console,
            transient=True, speed_estimate_period=RATE_WINDOW_S,
        )

    def __enter__(self) -> Self:
        from smpo.library_output import quieten_libraries

        quieten_libraries()
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[..., None]]:
        """A callback (done, total) or (what, done, total) that moves the stage's bar."""
        task, last = self.bars.add_task("", stage=name, total=None), 0

        def progress(*values: str | int | None) -> None:
            nonlocal last
            what, done, total = values if len(values) == 3 else ("", *values)
            if done < last:
                self.bars.reset(task)  # the next of several image sets: its own time and rate
            last = done
            self.bars.update(task, description=what, completed=done, total=total)

        try:
            yield progress
        finally:
            self.bars.remove_task(task)

    def warn(self, subject: str, text: str) -> None:
        """What the user should know before a run goes on."""
        self.console.print(Text(f"  warning: {subject}: {text}"), soft_wrap=True)

    def done(self, name: str, said: str, seconds: float) -> None:
        """The finished stage's line."""
        self.console.print(f"[bold]{name:>9}[/bold] {seconds:6.1f} s  {said}", soft_wrap=True)
