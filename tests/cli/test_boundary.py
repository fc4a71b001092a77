"""The one boundary: what a command prints and the code that it ends with."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from smpo.cli import NO_TELEMETRY
from smpo.cli.app import app
from smpo.cli.boundary import REPORT, run_guarded, stage_named
from smpo.core.errors import DataError, ProcessError, Stopped

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line here; gives back code, stdout and stderr."""

    def run_here(*arguments: str, program: typer.Typer = app) -> tuple[int, str, str]:
        code = run_guarded(program, arguments)
        return code, *capsys.readouterr()

    return run_here


def raising(error: BaseException) -> typer.Typer:
    """A program whose verb `go` raises in stage `train`."""
    program = typer.Typer()

    @program.command()
    def go() -> None:
        with stage_named("train"):
            raise error

    @program.callback()
    def nothing() -> None:
        pass

    return program


@pytest.mark.parametrize(("error", "code", "line"), [
    (DataError("x is broken; mend it"), 1, "error: smpo train: x is broken; mend it\n"),
    (DataError("[/a] exp[lr=1e-5] [red]"), 1, "error: smpo train: [/a] exp[lr=1e-5] [red]\n"),
    (DataError("a\x1b[31m b"), 1, "error: smpo train: a\\x1b[31m b\n"),
    (OSError(28, "No space left on device", "runs/a"), 1, "error: smpo train: runs/a: the disk is full; "),
    (MemoryError(), 1, "error: smpo train: no memory is left; lower training.micro_batch_size"),
    (Stopped(130, "saved at step 3; run the same command to go on"), 130, "saved at step 3; run the same command to"),
    (Stopped(75, "saved at step 3; run the same command to go on"), 75, "saved at step 3; run the same command to go"),
    (KeyboardInterrupt(), 130, "stopped; run the same command to go on\n"),
    (SystemExit(4), 4, ""),
    (typer.Exit(3), 3, ""),
])
def test_errors_are_one_line_and_a_code(run: Run, error: BaseException, code: int, line: str) -> None:
    found, out, err = run("go", program=raising(error))
    assert (found, out) == (code, "") and err.startswith(line) and err.count("\n") == bool(line)


def test_a_bug_keeps_its_traceback_and_asks_for_a_report(run: Run) -> None:
    code, _, err = run("go", program=raising(KeyError("x")))
    assert code == 70 and "Traceback (most recent call last)" in err
    assert err.splitlines()[-1] == f"error: smpo train: KeyError; {REPORT}"


@pytest.mark.parametrize("how", ["option", "environment"])
def test_everything_is_shown_where_it_is_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "environment":
        monkeypatch.setenv("SMPO_TRACEBACK", "1")
    arguments = ["go", "--debug"] if how == "option" else ["go"]
    code, _, err = run(*arguments, program=raising(DataError("x is broken")))
    assert code == 1 and "Traceback" in err and err.endswith("error: smpo train: x is broken\n")


def test_one_of_several_processes_says_which_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("go", program=raising(ProcessError("gone")))[2] == "error: process 1 of 2: smpo train: gone\n"


@pytest.mark.parametrize(("arguments", "line"), [
    (("trian",), "error: No such command 'trian'. Did you mean 'train'? See `smpo --help`.\n"),
    (("zzzz",), "error: No such command 'zzzz'. See `smpo --help`.\n"),
    (("tr[/a]in",), "error: No such command 'tr[/a]in'. "),
    (("train",), "error: Missing argument 'recipe'. See `smpo train --help`.\n"),
    (("train", "sd15-dpo", "--learning_rate", "1e-5"),
     "error: there is no option --learning_rate; write training.optimizer.lr=... (used as it is written, never"),
    (("train", "sd15-dpo", "--max-train-steps=5"),
     "error: there is no option --max-train-steps; write training.steps="),
    (("train", "sd15-dpo", "--nonsense"), "error: there is no option --nonsense; keys of a recipe are written as "),
    (("sweep", "tiny-beta", "--jobs", "0"), "error: Invalid value for '--jobs': "),
    (("show", "\udcff"), "error: '\\udcff' is not UTF-8 text; "),
])
def test_wrong_usage_is_one_line_with_a_hint_and_code_2(run: Run, arguments: tuple[str, ...], line: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.startswith(line) and err.count("\n") == 1


def test_no_arguments_are_a_question_for_help(run: Run) -> None:
    code, out, _ = run()
    assert code == 0 and "Usage: smpo" in out


def test_what_surrounds_a_run_is_one_line_with_the_stage(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file as work folder, a name that is too long, a source that is not there, stages that have not been run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "a.png", "rejected": "b.png"}\n')
    for arguments, words in (
        (("pairs", "sd15-dpo", "data.source=pairs.jsonl", "paths.workdir=file/x"),
         "smpo pairs: file/x/pairs: a part of this path is a file, not a folder; "),
        (("pairs", "sd15-dpo", "data.source=pairs.jsonl", f"paths.workdir={'n' * 300}"), ": the name is too long; "),
        (("pairs", "sd15-dpo", "data.source=/nope"), "data.source: /nope does not exist; correct the path"),
        (("train", "sd15-dpo", "data.source=/nope"), "data.source: /nope does not exist; the stages before need it"),
        (("train", "sd15-dpo", "data.source=pairs.jsonl"), "`smpo train` reads what pairs, label and cache should"),
        (("evaluate", "sd15-dpo", "data.source=pairs.jsonl"), "what pairs, label, cache, train and generate should"),
        (("label", "sd15-dpo", "data.source=pairs.jsonl"), "or `smpo pairs sd15-dpo` first"),
    ):
        code, out, err = run(*arguments)
        assert code == 1 and out == "" and words in err, err
        assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1 and "Traceback" not in err


@pytest.mark.parametrize("verb", ["show", "train"])
def test_looking_at_a_recipe_needs_nothing_that_it_names(run: Run, verb: str) -> None:
    rest = () if verb == "show" else ("--dry-run", "data.source=/nope", "generation.prompts=/nope", "model.source=/no")
    code, out, err = run(verb, "sd15-smpo", *rest)
    assert (code, err) == (0, "") and out


def test_the_environment_keeps_libraries_from_reporting_home(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, sys; from smpo import cli; sys.argv = ['smpo', '--version']\ntry: cli.main()\n" \
             "except SystemExit: print(*(os.environ[name] for name in cli.NO_TELEMETRY))"
    clean = {key: value for key, value in os.environ.items() if key not in NO_TELEMETRY}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=clean)
    assert done.stdout.split()[1:] == list(NO_TELEMETRY.values())


@pytest.mark.parametrize(("shell", "code", "error"), [
    ("exec {python} -m smpo show > /dev/full", 1, "error: the disk is full; "),
    ("({python} -m smpo show; echo $? >&2) | true", 0, "141\n"),
])
def test_an_output_that_nobody_takes_ends_the_program_quietly(shell: str, code: int, error: str) -> None:
    command = shell.format(python=sys.executable)
    if "true" in command:  # a reader that has gone before the first line
        command = command.replace("| true", "| sleep 0")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == code and done.stderr.startswith(error) and done.stderr.count("\n") == 1


def test_handlers_of_signals_are_put_back(run: Run) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    run("--version")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
