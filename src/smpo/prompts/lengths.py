"""Prompts that are longer than a model's text encoders read: their ends are cut off, and never noticed."""

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
    """How many prompts of how many have more tokens than the limit, its marks of start and end among them."""

    over: int
    prompts: int
    limit: int

    def describe(self) -> str:
        """What to add to a stage's text: nothing where no prompt is too long."""
        if not self.over:
            return ""
        have = "prompt has" if self.over == 1 else "prompts have"
        return f"; {self.over} of {self.prompts} {have} more than {self.limit} tokens: what is beyond is cut off"


def count_over_limit(lengths: Iterable[int], limit: int) -> int:
    """How many of `lengths`, in tokens, are above `limit`."""
    return sum(length > limit for length in lengths)


def cut_prompts(prompts: Iterable[str], model: str) -> str:
    """What a stage says of over-long prompts; nothing where the pipeline `model`, a source, is not on this machine."""
    try:
        folder = cached_pipeline(model)
        return "" if folder is None else long_prompts(prompts, folder).describe()
    except ConfigError:
        return ""  # the pairs do not need the model; `smpo check` and the stages that do say what is wrong with it


def long_prompts(prompts: Iterable[str], folder: Path) -> LongPrompts:
    """The over-long ones of the distinct `prompts`, by all tokenizers of the pipeline `folder`.

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
    """The tokenizer in `folder`, to count with; whether it fits its encoder is proven where that is loaded."""
    try:
        return CLIPTokenizer.from_pretrained(folder)
    except Exception as error:  # a library's parser, given files of a stranger
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{folder} holds no tokenizer that can be loaded ({reason}); correct the model") from error


def lengths_of(prompts: Sequence[str], tokenizer: CLIPTokenizer) -> list[int]:
    """Tokens of each prompt, with the marks of start and end, before anything is cut off."""
    found: list[int] = []
    for start in range(0, len(prompts), BLOCK_PROMPTS):
        block = list(prompts[start:start + BLOCK_PROMPTS])
        found += [len(ids) for ids in tokenizer(block, truncation=False, verbose=False).input_ids]
    return found
