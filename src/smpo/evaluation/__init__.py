"""Scores of image sets, their comparison with intervals, figures and the report."""
