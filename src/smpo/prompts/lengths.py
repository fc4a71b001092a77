"""Counts prompts that are longer than a model's text encoders read: the model never sees their ends."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import CLIPTokenizer

from smpo.core.errors import ConfigError
from smpo.models.sources import cached_pipeline

TOKENIZERS = ("tokenizer", "tokenizer_2")
BLOCK_PROMPTS = 1024


@dataclass(frozen=True)
class LongPrompts:
    """Number `over` of the `prompts` that have more tokens than `limit`; start and end tokens count."""

    over: int
    prompts: int
    limit: int

    def describe(self) -> str:
        """Text to append to a stage's report; empty if no prompt is too long."""
        if not self.over:
            return ""
        have = "prompt has" if self.over == 1 else "prompts have"
        return f"; {self.over} of {self.prompts} {have} more than {self.limit} tokens: what is beyond is cut off"


def count_over_limit(lengths: Iterable[int], limit: int) -> int:
    """Number of `lengths`, in tokens, above `limit`."""
    return sum(length > limit for length in lengths)


def cut_prompts(prompts: Iterable[str], model: str) -> str:
    """Text about too long prompts for a stage's report; empty if the pipeline `model` is not on this machine."""
    try:
        folder = cached_pipeline(model)
        return "" if folder is None else long_prompts(prompts, folder).describe()
    except ConfigError:
        return ""  # this stage does not need the model; `smpo check` and later stages report what is wrong with it


def long_prompts(prompts: Iterable[str], folder: Path) -> LongPrompts:
    """The count for the distinct `prompts`, by all tokenizers of the pipeline in `folder`.

    Raises:
        ConfigError: a tokenizer cannot be loaded.
    """
    distinct = list(dict.fromkeys(prompts))
    tokenizers = [_tokenizer(folder / name) for name in TOKENIZERS if (folder / name).is_dir()]
    if not tokenizers:
        return LongPrompts(0, len(distinct), 0)
    limit = min(tokenizer.model_max_length for tokenizer in tokenizers)
    longest = [max(lengths) for lengths in zip(*(lengths_of(distinct, one) for one in tokenizers), strict=True)]
    return LongPrompts(count_over_limit(longest, limit), len(distinct), limit)


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer in `folder`, to count tokens; whether it fits the text encoder is checked when that is loaded."""
    try:
        return CLIPTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers raises many kinds of errors for damaged files
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{folder} holds no tokenizer that can be loaded ({reason}); correct the model") from error


def lengths_of(prompts: Sequence[str], tokenizer: CLIPTokenizer) -> list[int]:
    """Number of tokens of each prompt, with start and end tokens, before it is cut off."""
    lengths: list[int] = []
    for start in range(0, len(prompts), BLOCK_PROMPTS):
        block = list(prompts[start:start + BLOCK_PROMPTS])
        lengths += [len(ids) for ids in tokenizer(block, truncation=False, verbose=False).input_ids]
    return lengths
