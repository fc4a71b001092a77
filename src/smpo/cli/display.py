"""What the terminal shows: one progress bar for the running stage, one line for each finished one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def is_main_process() -> bool:
    """Whether this process is the one that talks, under `accelerate launch` or alone."""
    return os.environ.get("RANK", "0") == "0"


class Display:
    """Progress on stderr-like rich consoles; silent on all but the main process."""

    def __init__(self) -> None:
        self.console = Console(quiet=not is_main_process(), highlight=False)
        self.bars = Progress(
            TextColumn("{task.fields[stage]:>9}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("[dim]{task.description}"), console=self.console, transient=True,
        )

    def __enter__(self) -> Self:
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
        task = self.bars.add_task("", stage=name, total=None)

        def progress(*values: str | int | None) -> None:
            what, done, total = values if len(values) == 3 else ("", *values)
            self.bars.update(task, description=what, completed=done, total=total)

        try:
            yield progress
        finally:
            self.bars.remove_task(task)

    def done(self, name: str, said: str, seconds: float) -> None:
        """The finished stage's line."""
        self.console.print(f"[bold]{name:>9}[/bold] {seconds:6.1f} s  {said}", soft_wrap=True)


def quieten_libraries() -> None:
    """Turn off the loading bars and import notices of diffusers and transformers: the stages report themselves."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
