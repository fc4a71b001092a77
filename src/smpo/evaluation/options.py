"""What a recipe has to know of evaluation. Imports no torch, so that recipes load at once."""

COLUMNS = ("index", "prompt", "seed", "file")
"""The columns that every table of scores has; no scorer may have the name of one."""
