"""Progress without a terminal, by a clock of the test's own."""

import io
import time

import pytest

from smpo.cli.display import Display
from smpo.core.errors import ConfigError
from smpo.core.progress_lines import INTERVAL, ProgressLines, duration, interval_s


def test_a_line_has_stage_done_total_rate_and_remaining_time() -> None:
    """From 100 of 200, 10 every 2 s: 5/s and 16 s left at 120; then another set of 300, 20/s, 10 s left at 100."""
    seconds = [0.0]
    lines = ProgressLines("generate", every_s=0, clock=lambda: seconds[0])
    seconds[0] = 65
    assert lines.line() == "running for 65 s"
    for done in (100, 110, 120):
        lines("base", done, 200)
        seconds[0] += 2
    seconds[0] -= 2
    assert lines.line() == "120/200 images, 5 images/s, 16 s left  base"
    for done in (20, 60, 100):
        lines("smpo [/a]", done, 300)
        seconds[0] += 2
    seconds[0] -= 2
    assert lines.line() == "100/300 images, 20 images/s, 10 s left  smpo [/a]"


def test_without_a_total_there_is_a_rate_and_no_remaining_time() -> None:
    seconds = [0.0]
    lines = ProgressLines("pairs", every_s=0, clock=lambda: seconds[0])
    for done in (0, 50):
        lines(done, None)
        seconds[0] += 5
    assert lines.line() == "50/? rows, 5 rows/s"


def test_lines_come_at_the_start_by_time_and_at_the_end() -> None:
    out = io.StringIO()
    with ProgressLines("train", every_s=0.05, to=out, before="[seed 0] ") as lines:
        lines("loss 0.5", 3, 10)
        deadline = time.monotonic() + 20
        while out.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    first, second, *_, last = out.getvalue().splitlines()
    assert first == "[seed 0] train: started" and second == "[seed 0] train: 3/10 steps  loss 0.5"
    assert last.startswith("[seed 0] train: done after ")
    with pytest.raises(KeyError), ProgressLines("train", every_s=60, to=out):
        raise KeyError
    assert out.getvalue().splitlines()[-1].startswith("train: ended after ")


def test_nobody_reading_the_lines_ends_no_work() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with ProgressLines("train", every_s=60, to=Closed()) as lines:
        lines(1, 2)


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (99.4, "99 s"), (100, "2 min"), (3600, "60 min"), (6000, "1 h 40 min"), (93_600, "26 h 00 min"),
])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("given", "seconds"), [("", 30), ("5", 5), ("0.5", 0.5), ("0", 0), (" 7 ", 7)])
def test_the_interval_is_the_environments(monkeypatch: pytest.MonkeyPatch, given: str, seconds: float) -> None:
    monkeypatch.setenv(INTERVAL, given)
    assert interval_s() == seconds


@pytest.mark.parametrize("given", ["x", "-1", "nan", "inf", "1 s"])
def test_an_interval_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(INTERVAL, given)
    with pytest.raises(ConfigError, match=rf"^{INTERVAL} must be a number of seconds >= 0, got '{given}'"):
        interval_s()


def test_results_go_to_stdout_progress_to_stderr_and_brackets_stay(capsys: pytest.CaptureFixture[str]) -> None:
    for moves in (False, True):
        display = Display()
        display.moves = moves
        with display.stage("train") as progress:
            progress("prompt [/a] [bold]", 1, 2)
            progress("exp[lr=1e-5]", 2, 2)
        display.done("train", "model in run[/a] and exp[lr=1e-5]", 1.5)
        out, err = capsys.readouterr()
        assert out == "    train    1.5 s  model in run[/a] and exp[lr=1e-5]\n"
        assert moves or err.startswith("train: started\ntrain: done after ")
