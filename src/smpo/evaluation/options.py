"""Names of the evaluation that recipes are checked against. This module imports no torch."""

COLUMNS = ("index", "prompt", "seed", "file")
"""The columns that every table of scores has; a scorer must not have such a name."""
