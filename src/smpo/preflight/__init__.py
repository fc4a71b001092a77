"""What can be known before a run starts: each probe asks one question about the recipe and its surroundings."""

from smpo.preflight.check import check, require
from smpo.preflight.findings import Finding, Outcome

__all__ = ["Finding", "Outcome", "check", "require"]
