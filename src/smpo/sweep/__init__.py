"""Sweeps: many runs of a recipe (grid x rows x seeds) by several processes, with one row of results for each run."""
