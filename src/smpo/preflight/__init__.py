"""Checks before a run: each probe checks one thing that the recipe needs, such as the model or the free disk."""

from smpo.preflight.check import check, require
from smpo.preflight.findings import Finding, Outcome

__all__ = ["Finding", "Outcome", "check", "require"]
