"""Prompts and the files that hold them."""

from smpo.prompts.reading import Source, read_prompts
from smpo.prompts.record import Prompt

__all__ = ["Prompt", "Source", "read_prompts"]
