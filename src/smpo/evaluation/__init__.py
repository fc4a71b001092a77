"""Scores of image sets, statistics of them, and comparisons of several sets."""
