"""Prompts, and readers of the files and datasets that hold them."""

from smpo.prompts.reading import Source, read_prompts
from smpo.prompts.record import Prompt

__all__ = ["Prompt", "Source", "read_prompts"]
