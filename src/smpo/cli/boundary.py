"""The one place where errors become lines and exit codes: 0 done, 1 failed, 2 wrong usage, 70 a bug of smpo,
75 preempted, 130 Ctrl-C, 141 the reader of the output has ended. docs/command-line.md lists them.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.main import get_command

from smpo.core.checks import did_you_mean
from smpo.core.errors import Stopped
from smpo.core.failures import described
from smpo.core.flag_names import flag_hint, recipe_key_for
from smpo.core.signals import GO_ON, INTERRUPTED, stopping

FAILED, USAGE, BUG, UNREAD = 1, 2, 70, 141
TRACEBACK = "SMPO_TRACEBACK"
_CLICK: tuple[Any, ...] = typer.BadParameter.__mro__  # classes of Click, or of the Click inside typer
UsageError: type[Exception] = _CLICK[1]
ClickException: type[Exception] = _CLICK[2]
REPORT = "this is a bug of smpo; please report it with the lines above"
_STAGE = "while in "


@contextlib.contextmanager
def stage_named(name: str) -> Iterator[None]:
    """Note on an error that leaves this block which stage it is from."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{_STAGE}smpo {name}")
        raise


def run_guarded(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run the command line; every error that can be foreseen is one line on stderr. Returns the exit code."""
    prepare_streams()
    arguments, shows_all = _without_debug(arguments)
    code = _guarded(app, arguments, shows_all=shows_all)
    try:
        sys.stdout.flush()
    except OSError:  # it failed before; Python would try again at exit, and fail with a code of its own
        _silence(1)
    return code


def _guarded(app: typer.Typer, arguments: Sequence[str], *, shows_all: bool) -> int:
    try:
        with stopping():
            _call(app, arguments)
            sys.stdout.flush()
        return 0
    except Stopped as stop:
        _print_line(stop.message)
        return int(stop.code or 0)
    except KeyboardInterrupt:
        _print_line(f"stopped; {GO_ON}")
        return INTERRUPTED
    except ClickException as error:
        _print_line(f"error: {_usage(error, app)}")
        return USAGE
    except BrokenPipeError:  # the program that read the output has ended, as `head` does
        _silence(1, 2)
        return UNREAD
    except (typer.Exit, typer.Abort) as end:
        return int(getattr(end, "exit_code", FAILED))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except Exception as error:
        return _failed(error, shows_all=shows_all)


def prepare_streams() -> None:
    """Escape the characters that the encoding of the terminal lacks, so that every text can be printed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _call(app: typer.Typer, arguments: Sequence[str]) -> None:
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UsageError(f"{ascii(argument)} is not UTF-8 text; rename the file, or set LC_ALL=C.UTF-8")
    command = get_command(app)
    with command.make_context("smpo", list(arguments) or ["--help"]) as context:
        command.invoke(context)


def _failed(error: Exception, *, shows_all: bool) -> int:
    line = described(error)
    if line is None or shows_all:
        traceback.print_exception(error)
    notes = [note.removeprefix(_STAGE) for note in getattr(error, "__notes__", []) if note.startswith(_STAGE)]
    where = f"{notes[0]}: " if notes else ""
    if line is None:
        _print_line(f"error: {where}{type(error).__name__}; {REPORT}")
        return BUG
    _print_line(f"error: {_process()}{where}{line}")
    return FAILED


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments but for --debug, and whether every error shows its traceback."""
    shows_all = "--debug" in arguments or os.environ.get(TRACEBACK, "0") not in ("", "0")
    return [argument for argument in arguments if argument != "--debug"], shows_all


def _usage(error: Any, app: typer.Typer) -> str:
    """A wrong usage in one line, with the nearest known name and the command that prints help."""
    context = getattr(error, "ctx", None)
    verb = context.command_path if context else "smpo"
    message = " ".join(error.format_message().split())
    option = getattr(error, "option_name", None)
    if option is not None:
        key = recipe_key_for(option)
        note = flag_hint(option).partition("?")[2]
        instead = f"write {key.name}=...{note}" if key else "keys of a recipe are written as section.key=value"
        message = f"there is no option {option}; {instead}."
    elif message.startswith("No such command") and "Did you mean" not in message:
        verbs: Any = get_command(app)
        message += did_you_mean(message.partition("'")[2].partition("'")[0], verbs.commands)
    return f"{message} See `{verb} --help`."


def _process() -> str:
    """The number of this process in front of its message; empty for the main process or a single one."""
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    return "" if size == "1" or rank == "0" else f"process {rank} of {size}: "


def _silence(*descriptors: int) -> None:
    """Discard everything that is written to these file descriptors from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.dup2(nowhere, descriptor)


def _print_line(line: str) -> None:
    with contextlib.suppress(OSError):  # the reader of stderr may have ended
        print("".join(one if one.isprintable() else ascii(one)[1:-1] for one in line), file=sys.stderr, flush=True)
