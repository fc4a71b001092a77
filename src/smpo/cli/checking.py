"""How `smpo check` prints its findings: a line each, as they are made."""

from collections import Counter

from smpo.core.errors import ConfigError
from smpo.core.library_output import quieten_libraries
from smpo.pipeline.config import Recipe
from smpo.preflight import Outcome, check


def print_findings(recipe: Recipe) -> None:
    """Print the findings of every probe that a whole run needs.

    Raises:
        ConfigError: something would stop the run.
    """
    quieten_libraries()
    counts: Counter[Outcome] = Counter()
    for finding in check(recipe):
        counts[finding.outcome] += 1
        print(f"{finding.outcome.value:8} {finding.subject:16} {finding.text}", flush=True)
    passed, warned, failed = (counts[outcome] for outcome in (Outcome.OK, Outcome.WARNING, Outcome.FAILED))
    if failed:
        raise ConfigError(f"{failed} of {passed + warned + failed} findings would stop `smpo run`; see FAILED above")
    print(f"{recipe.name} can run: {passed + warned} findings, {warned} of them warnings.")
