"""The image sets of tests/image_sets.py and their scores."""

from tests.image_sets import evaluations, sets

__all__ = ["evaluations", "sets"]
