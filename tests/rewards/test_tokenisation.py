"""Token ids against those that the original tokenizers gave for hard prompts and for all of PartiPrompts."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from smpo.core.errors import DataError
from smpo.rewards.tokenisation import (
    OPENAI_MARKS,
    ImageRewardTokens,
    OpenClipTokens,
    TransformersClipTokens,
    clean,
)
from tests.rewards.goldens.cases import HARD_PROMPTS
from tests.rewards.published import golden

PARTI = Path(__file__).parents[3] / "shared" / "data" / "PartiPrompts.tsv"
FAMILIES = ("open_clip", "hpsv2", "openai", "imagereward")


@pytest.fixture(scope="module")
def tokenizers(clip_vocabulary: Path, bert_vocabulary: Path) -> dict[str, Callable[[str], list[int]]]:
    open_clip = OpenClipTokens(clip_vocabulary)
    openai, bert = OpenClipTokens(clip_vocabulary, marks=OPENAI_MARKS), ImageRewardTokens(bert_vocabulary)
    return {"open_clip": lambda prompt: open_clip(prompt).tolist(), "hpsv2": lambda prompt: open_clip(prompt).tolist(),
            "openai": lambda prompt: openai(prompt).tolist(), "imagereward": lambda prompt: bert(prompt).ids.tolist()}


def golden_tokens(family: str) -> dict:
    return golden("clip" if family in ("open_clip", "hpsv2") else "imagereward")["tokens"][family]


@pytest.mark.parametrize("family", FAMILIES)
def test_hard_prompts(family: str, tokenizers: dict):
    expected = golden_tokens(family)["ids"]
    assert set(expected) == set(HARD_PROMPTS)
    different = {prompt: tokenizers[family](prompt) for prompt in HARD_PROMPTS
                 if tokenizers[family](prompt) != expected[prompt]}
    assert different == {}


@pytest.mark.skipif(not PARTI.exists(), reason="PartiPrompts.tsv is not beside the checkout")
@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_partiprompts(family: str, tokenizers: dict):
    with PARTI.open() as file:
        prompts = [row["Prompt"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    rows = [tokenizers[family](prompt) for prompt in prompts]
    assert len(rows) == 1632
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == golden_tokens(family)["parti_sha256"]


def test_transformers_clip_tokens(clip_vocabulary: Path):
    """PickScore's: transformers' own, cut at 77 with the end token kept."""
    own, theirs = TransformersClipTokens(clip_vocabulary, positions=77), CLIPTokenizer.from_pretrained(clip_vocabulary)
    for prompt in HARD_PROMPTS:
        assert own(prompt).tolist() == theirs(prompt, truncation=True, max_length=77)["input_ids"]
    assert own("a photo of a cat").tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(own("word " * 100)) == 77 and own("word " * 100)[-1] == 49407


def test_the_two_clip_families_differ(clip_vocabulary: Path):
    """Typographic quotes are repaired by one alone: 12 of PartiPrompts' prompts are read differently."""
    prompt = "the cat\u2019s hat"
    cleaned = OpenClipTokens(clip_vocabulary)
    assert cleaned(prompt).tolist() == cleaned("the cat's hat").tolist()
    plain = TransformersClipTokens(clip_vocabulary, positions=77)
    assert plain(prompt).tolist() != plain("the cat's hat").tolist()


def test_either_layout_of_a_vocabulary_will_do(clip_vocabulary: Path, tmp_path: Path):
    CLIPTokenizer.from_pretrained(clip_vocabulary).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    one, other = OpenClipTokens(tmp_path), OpenClipTokens(clip_vocabulary)
    assert all(one(prompt).tolist() == other(prompt).tolist() for prompt in HARD_PROMPTS)


def test_imagereward_reads_33_word_pieces(bert_vocabulary: Path):
    tokens = ImageRewardTokens(bert_vocabulary)
    assert tokens("cat " * 33).ids.tolist() == [101, *[4937] * 33, 102]
    assert tokens("cat " * 33 + "dog").ids.tolist() == [101, *[4937] * 33, 102]
    short = tokens("cat")
    assert (short.ids.tolist(), short.mask.tolist()) == ([101, 4937, 102] + [0] * 32, [1, 1, 1] + [0] * 32)
    assert tokens("[DEC] [ENC]").ids.tolist()[1:3] == [30522, 30523]


def test_cleaning():
    assert clean("  A\u00a0&amp;amp;lt;  sch\u00c3\u00b6n\n") == "a < sch\u00f6n"


@pytest.mark.parametrize(("kind", "message"), [
    (OpenClipTokens, "holds no CLIP tokenizer (vocab.json, merges.txt); set processor or tokenizer to one that does"),
    (ImageRewardTokens, "holds no BERT tokenizer (vocab.txt); set tokenizer to bert-base-uncased's"),
])
def test_missing_vocabulary(kind: type, message: str, tmp_path: Path):
    with pytest.raises(DataError) as caught:
        kind(tmp_path)
    assert str(caught.value) == f"{tmp_path} {message}"
