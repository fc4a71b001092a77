"""A real CLIPTokenizer with a small vocabulary: every byte, and one token for each word of the tiny world."""

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTokenizer

from smpo.tiny.prompts import PAIR_TEMPLATES, POSITION_OF, SINGLE_TEMPLATES, SIZE_OF
from smpo.tiny.scenes import BACKGROUNDS, COLOURS, KINDS

MAX_TOKENS = 32
BOS_TOKEN, EOS_TOKEN = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"


def world_words() -> list[str]:
    """Every word that a prompt of the world can hold, sorted."""
    templates = [re.sub(r"\{\w+\}", " ", template) for template in SINGLE_TEMPLATES + PAIR_TEMPLATES]
    text = " ".join([*templates, *POSITION_OF, *SIZE_OF, *KINDS, *COLOURS, *BACKGROUNDS, "an"])
    return sorted(set(re.findall(r"[a-z]+", text)))


def merges_of(words: list[str]) -> list[tuple[str, str]]:
    """BPE merges, in order of rank, that join each word from left to right into one token.

    Longer words rank first: were "at" merged before "cat", the latter could not become one token.
    """
    merges: dict[tuple[str, str], None] = {}  # a dict keeps the order and drops repeats
    for word in sorted(words, key=lambda word: (-len(word), word)):
        letters = [*word[:-1], word[-1] + END_OF_WORD]
        joined = letters[0]
        for letter in letters[1:]:
            merges[joined, letter] = None
            joined += letter
    return list(merges)


def build_tokenizer() -> CLIPTokenizer:
    """The world's tokenizer: 512 byte tokens, the merges of `merges_of`, 32 tokens at most; any text tokenises."""
    letters = sorted(ByteLevel.alphabet())
    merges = merges_of(world_words())
    pieces = letters + [letter + END_OF_WORD for letter in letters] + [a + b for a, b in merges]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, BOS_TOKEN, EOS_TOKEN]))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the tokenizer, also as the vocab.json and merges.txt that older transformers read."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))


def encode(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Token ids of prompts, padded and cut to 32, int64 (B, 32)."""
    return tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt").input_ids
