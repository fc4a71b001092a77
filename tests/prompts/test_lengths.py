"""Prompts that a text encoder cannot read to their end are counted, in every stage that uses them."""

import logging
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from smpo.models.sources import local_pipeline
from smpo.prompts.lengths import LongPrompts, count_over_limit, cut_prompts, lengths_of, long_prompts

TINY = "package://smpo.tiny/weights/tiny-sd"


def test_count():
    assert count_over_limit([2, 77, 78, 100], 77) == 2
    assert LongPrompts(0, 9, 77).describe() == ""
    assert LongPrompts(1, 9, 77).describe() == "; 1 of 9 prompt has more than 77 tokens: what is beyond is cut off"
    assert LongPrompts(2, 9, 77).describe() == "; 2 of 9 prompts have more than 77 tokens: what is beyond is cut off"


def test_lengths_hold_what_is_cut_off(caplog: pytest.LogCaptureFixture):
    """A word of the tiny vocabulary is a token; start and end are two more. No warning is printed for long ones."""
    tokenizer = CLIPTokenizer.from_pretrained(local_pipeline(TINY) / "tokenizer")
    word = next(word.removesuffix("</w>") for word in tokenizer.get_vocab() if word.endswith("</w>") and len(word) > 5)
    limit = tokenizer.model_max_length
    prompts = [" ".join([word] * count) for count in (1, limit - 2, limit - 1)]
    with caplog.at_level(logging.WARNING):
        assert lengths_of(prompts, tokenizer) == [3, limit, limit + 1]
    assert not caplog.records
    assert long_prompts([*prompts, prompts[2]], local_pipeline(TINY)) == LongPrompts(1, 3, limit)


def test_a_model_that_is_not_here_counts_nothing(tmp_path: Path):
    assert long_prompts(["a"], tmp_path) == LongPrompts(0, 1, 0)
    for source in ("nobody/nothing", str(tmp_path / "none")):
        assert cut_prompts(["a"], source) == ""
    assert "1 of 1 prompt has more than" in cut_prompts(["red " * 200], TINY)
