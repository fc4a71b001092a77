"""The tokenizer and the noisy captions."""

import numpy as np
import pytest
from transformers import CLIPTokenizer

from smpo.tiny.captions import noisy_caption
from smpo.tiny.prompts import parse, sample_prompts, sample_scenes
from smpo.tiny.tokenizer import build_tokenizer, encode, save_tokenizer, world_words

TOKENIZER = build_tokenizer()


@pytest.mark.parametrize("word", world_words())
def test_each_word_of_the_world_is_one_token(word):
    ids = TOKENIZER(word).input_ids
    assert TOKENIZER.convert_ids_to_tokens(ids) == ["<|startoftext|>", f"{word}</w>", "<|endoftext|>"]


def test_any_text_tokenises_and_comes_back():
    text = "zebra 42 caf\u00e9 \u4f60\u597d!"
    ids = TOKENIZER(text).input_ids
    assert len(ids) > 10
    assert TOKENIZER.unk_token_id not in ids[1:-1]


def test_prompts_fit_and_are_padded_to_32():
    ids = encode(TOKENIZER, sample_prompts(200, seed=0, split="train"))
    assert ids.shape == (200, 32)
    assert (ids[:, -1] == TOKENIZER.eos_token_id).all()
    assert (ids[:, 28] == TOKENIZER.eos_token_id).all()


def test_a_saved_tokenizer_loads_equal(tmp_path):
    save_tokenizer(TOKENIZER, tmp_path)
    assert {"vocab.json", "merges.txt"} <= {path.name for path in tmp_path.iterdir()}
    prompts = sample_prompts(20, seed=1, split="heldout")
    assert (encode(CLIPTokenizer.from_pretrained(tmp_path), prompts) == encode(TOKENIZER, prompts)).all()


def test_captions_are_sometimes_empty_wrong_or_short():
    rng = np.random.default_rng(0)
    scenes = sample_scenes(400, seed=3, split="train")
    captions = [noisy_caption(scene, rng) for scene in scenes]
    empty = sum(not caption for caption in captions) / len(captions)
    right = 0
    for scene, caption in zip(scenes, captions, strict=True):
        try:
            right += parse(caption) == scene
        except ValueError:
            continue
    assert 0.06 <= empty <= 0.2
    assert 0.05 <= right / len(captions) <= 0.4
