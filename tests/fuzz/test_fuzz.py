"""Every fixed case, and as many at random as a fixed seed gives, through the real command line."""

import sys
from pathlib import Path

import pytest

from tests.fuzz.case import Accepted, Case, Refused, complaints
from tests.fuzz.domains import DOMAINS, cases_of
from tests.fuzz.world import World

SEED = 0
AT_RANDOM = {"overrides": 40, "recipes": 40, "rows": 60, "pictures": 15, "layouts": 10, "models": 10, "artefacts": 40}
"""Domain -> random cases on top of the fixed ones."""
AT_LEAST = {
    ("overrides", "recipes"): 500,
    ("rows", "tables", "pictures", "layouts", "prompts"): 300,
    ("models", "formats", "artefacts", "changes"): 200,
}
"""Domains -> cases that they must have together."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """What all cases start from."""
    return World(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_nothing_is_silently_wrong_hangs_or_ends_in_a_traceback(domain: str, world: World) -> None:
    found = []
    for case in cases_of(domain, seed=SEED, count=AT_RANDOM.get(domain, 0)):
        found += [f"{case.name}: {complaint}" for complaint in complaints(case, world, world.root)]
    assert not found, "\n".join(found)


def test_there_are_as_many_cases_as_promised_and_no_two_alike() -> None:
    for domains, number in AT_LEAST.items():
        cases = [case for domain in domains for case in cases_of(domain, seed=SEED, count=AT_RANDOM.get(domain, 0))]
        assert len(cases) >= number
        names = [(case.name, str(case.expect)) for case in cases]
        assert len(set(names)) > 0.95 * len(names)  # random cases may meet


def test_the_driver_notices_what_is_wrong(world: World) -> None:
    """An expectation that is not met, a traceback, a hang, an error of two lines, a file outside."""

    def make(cwd: Path, of: World) -> list[list[str]]:
        of.write_recipe(cwd)
        return [["cache", "recipe.yaml", "--dry-run"]]

    assert complaints(Case("good", make, Accepted()), world, world.root) == []
    assert "accepted, and must be refused" in complaints(Case("bad", make, Refused(("x",))), world, world.root)[0]


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: _for_ever(), "Hang: no end after"),
        (lambda: print("error: a\nb", file=sys.stderr) or sys.exit(1), "without one line of error at the end"),
        (lambda: print("error: " + "x; " * 300, file=sys.stderr) or sys.exit(1), "an error of 907 characters"),
        (lambda: print("error: no", file=sys.stderr) or sys.exit(1), "an error without a way out"),
        (lambda: Path("../stray").write_text("x"), "wrote outside its folder: stray"),
        (lambda: sys.exit(3), "exit code 3"),
        (lambda: bytearray(1 << 36), "MemoryError"),
    ],
)
def test_the_driver_notices_what_no_command_may_do(behaviour, complaint, world: World, monkeypatch) -> None:
    monkeypatch.setattr("tests.fuzz.running.cli.main", behaviour)
    case = Case("x", lambda cwd, of: [["show"]], Accepted(), limit_s=0.5)
    assert complaint in " ".join(complaints(case, world, world.root))


def _for_ever() -> None:
    while True:
        pass
