"""A case: how its input is made, and what must come of it, written down by who made it."""

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from tests.fuzz.running import LIMIT_S, Result, run
from tests.fuzz.world import World

MAX_ERROR = 400  # characters of an error's one line, paths of the sandbox not counted
WAY_OUT = re.compile(  # what to do; or a limit, which is as good
    r"; |Did you mean|should|must|expected|give |set |choose|correct|run `|accepted|cannot|only|needs|required|valid"
    r"|delete| is a |more than|deeper than|too many|not read|not UTF-8|inside|smpo show",
    re.I,
)


@dataclass(frozen=True)
class Made:
    """What a case has put in place: the commands to run, one after the other, in `cwd`."""

    cwd: Path
    commands: Sequence[Sequence[str]]
    world: World
    notes: dict[str, Any] = field(default_factory=dict)


class Expectation(Protocol):
    """The right outcome."""

    def complaints(self, results: Sequence[Result], made: Made) -> list[str]:
        """What is not as it must be."""
        ...


Make = Callable[[Path, World], Sequence[Sequence[str]]]
"""(folder to work in, world) -> the commands."""


@dataclass(frozen=True)
class Case:
    """One try. `source` is the public thread in which somebody met the like of it."""

    name: str
    make: Make
    expect: Expectation
    source: str = ""
    limit_s: float = LIMIT_S


@dataclass(frozen=True)
class Refused:
    """The last command ends with a one-line error that holds every fragment (or one of a tuple's), all before succeed.

    `writes` says that it may have written before it refused; else the folder must be as it was.
    """

    fragments: Sequence[str | tuple[str, ...]] = ()
    writes: bool = True

    def complaints(self, results: Sequence[Result], made: Made) -> list[str]:
        """See `Expectation`."""
        *before, last = results
        found = [f"`{' '.join(one.argv[:2])}` failed: {one.error or one.err[-200:]}" for one in before if one.code]
        if last.code == 0:
            return [*found, f"accepted, and must be refused (naming {', '.join(map(str, self.fragments))})"]
        for fragment in self.fragments:
            alternatives = (fragment,) if isinstance(fragment, str) else fragment
            if not any(one.lower() in (last.error + last.err).lower() for one in alternatives):
                found.append(f"the error does not name {' or '.join(alternatives)}: {last.error}")
        return found


@dataclass(frozen=True)
class Accepted:
    """Every command succeeds, and `check` (folder, results) finds nothing wrong."""

    check: Callable[[Made, Sequence[Result]], list[str]] = lambda made, results: []

    def complaints(self, results: Sequence[Result], made: Made) -> list[str]:
        """See `Expectation`."""
        failed = [f"refused, and must be accepted: {one.error or one.err[-200:]}" for one in results if one.code]
        return failed or self.check(made, results)


@dataclass(frozen=True)
class Either:
    """One of several outcomes is right."""

    outcomes: Sequence[Expectation]

    def complaints(self, results: Sequence[Result], made: Made) -> list[str]:
        """See `Expectation`."""
        found = [outcome.complaints(results, made) for outcome in self.outcomes]
        return [] if [] in found else ["; or ".join(" and ".join(one) for one in found)]


def resolved(key: str, value: Any) -> Accepted:
    """Expects of a dry run that `key` (dotted) has `value`."""

    def check(_: Made, results: Sequence[Result]) -> list[str]:
        node: Any = yaml.safe_load(results[-1].out)
        for part in key.split("."):
            node = node.get(part, "absent") if isinstance(node, dict) else "absent"
        same = type(node) is type(value) and node == value
        return [] if same else [f"{key} is {node!r}, and must be {value!r}"]

    return Accepted(check)


def complaints(case: Case, world: World, root: Path) -> list[str]:
    """What is wrong with the outcome of `case`; nothing where it is right."""
    with tempfile.TemporaryDirectory(dir=root, prefix="case-") as place:
        cwd, home = Path(place) / "cwd", Path(place) / "home"
        cwd.mkdir()
        home.mkdir()
        commands = case.make(cwd, world)
        before, results = _listing(cwd), []
        for command in commands:
            results.append(run(command, cwd, home=home, limit_s=case.limit_s))
            if results[-1].crash:
                return [f"`{' '.join(map(str, command[:2]))}`: {results[-1].crash}"]
            if results[-1].code:
                break
        found = [fault for result in results for fault in _faults(result, place)]
        strays = sorted(path.name for path in Path(place).iterdir() if path.name not in ("cwd", "home"))
        found += [f"wrote outside its folder: {', '.join(strays)}"] if strays else []
        if isinstance(case.expect, Refused) and not case.expect.writes and _listing(cwd) != before:
            found.append(f"refused, and yet wrote {', '.join(sorted(_listing(cwd) - before)[:3])}")
        return found + case.expect.complaints(results, Made(cwd, commands, world, {"home": home}))


def _listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _faults(result: Result, place: str) -> list[str]:
    """What no command may do, whatever its input."""
    name, found = f"`{' '.join(map(str, result.argv[:2]))}`", []
    if result.code not in (0, 1, 2):
        found.append(f"{name} ended with exit code {result.code}")
    if "Traceback (most recent call last)" in result.err + result.out:
        found.append(f"{name} printed a traceback")
    if result.code == 1:
        errors = [line for line in result.err.splitlines() if line.startswith("error:")]
        last = next((line for line in reversed(result.err.splitlines()) if line.strip()), "")
        if len(errors) != 1 or last != errors[0]:
            found.append(f"{name} ended without one line of error at the end: {result.err[-300:]!r}")
        elif len(errors[0].replace(place, "")) > MAX_ERROR:
            found.append(f"{name}: an error of {len(errors[0])} characters: {errors[0][:200]}...")
        elif not WAY_OUT.search(errors[0]):
            found.append(f"{name}: an error without a way out: {errors[0]}")
    return found
