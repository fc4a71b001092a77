"""Runs the probes: all of them for `smpo check`, and before a run those of its unfinished stages."""

from collections.abc import Collection, Iterator

from smpo.core.errors import ConfigError
from smpo.core.failures import described
from smpo.core.processes import this_process, wait_for_all
from smpo.pipeline.config import Recipe
from smpo.pipeline.stages import is_complete, stages_of
from smpo.preflight.findings import Finding, Outcome, Probe
from smpo.preflight.probes import PROBES


def check(recipe: Recipe, stages: Collection[str] | None = None) -> Iterator[Finding]:
    """The findings of every probe that one of `stages` needs, one after the other.

    Args:
        recipe: resolved.
        stages: names of stages; None stands for all stages of the recipe.
    """
    needed = set(stages_of(recipe) if stages is None else stages)
    failed: set[str] = set()
    for probe in PROBES:
        if needed & probe.stages and not failed & probe.after:
            for finding in _findings(probe, recipe):
                if finding.outcome is Outcome.FAILED:
                    failed.add(finding.subject)
                yield finding


def require(recipe: Recipe, stages: Collection[str]) -> list[Finding]:
    """The warnings of the probes that the unfinished ones of `stages` need; only the main process runs the probes.

    Raises:
        ConfigError: a stage could not be run; the message names all failures.
        ProcessError: in the other processes, if the main process raised an error.
    """
    findings: list[Finding] = []
    if this_process().is_main:
        findings = list(check(recipe, [stage for stage in stages if not is_complete(recipe, stage)]))
    failed = [finding for finding in findings if finding.outcome is Outcome.FAILED]
    if failed:
        raise ConfigError(_message(failed))
    wait_for_all("check the recipe")
    return [finding for finding in findings if finding.outcome is Outcome.WARNING]


def _findings(probe: Probe, recipe: Recipe) -> Iterator[Finding]:
    try:
        for note in probe.check(recipe):
            yield Finding(probe.subject, note.outcome, note.text)
    except Exception as error:  # the same errors of disks, networks and libraries that the run would meet
        text = described(error)
        if text is None:  # an error of this package
            raise
        yield Finding(probe.subject, Outcome.FAILED, text)


def _message(failed: list[Finding]) -> str:
    """The text of one failure, or of several in one line, each with its subject."""
    if len(failed) == 1:
        return failed[0].text
    return f"{len(failed)} checks failed: " + " | ".join(f"{one.subject}: {one.text}" for one in failed)
