"""A tiny random CLIPModel with tokenizer and preprocessing, saved as a checkpoint folder; the real vocabularies."""

import json
import string
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from tests.rewards.published import MEAN, STD, save_bert_vocabulary, save_clip_vocabulary

WORDS = ("cat", "dog", "red")


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIPModel of width 32 for 32 px images and 16 tokens; letters and three words in the vocabulary."""
    torch.manual_seed(seed)
    vocabulary, merges = _vocabulary()
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = vocabulary["<|endoftext|>"]
    text = {**tower, "vocab_size": len(vocabulary), "max_position_embeddings": 16, "eos_token_id": end,
            "pad_token_id": end, "bos_token_id": vocabulary["<|startoftext|>"]}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # transformers' own initialisation gives nearly equal cosines
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 32}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "do_normalize": True, "image_mean": MEAN,
        "image_std": STD}))
    return folder


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All printable characters, alone and at the end of a word, and the merges that make WORDS."""
    characters = [c for c in string.printable if not c.isspace()]
    tokens, merges = [*characters, *(f"{c}</w>" for c in characters)], []
    for word in WORDS:
        left = word[0]
        for right in [*word[1:-1], f"{word[-1]}</w>"]:
            merges.append((left, right))
            left += right
            tokens.append(left)
    return {token: n for n, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}, merges


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("scorers") / "clip")


@pytest.fixture(scope="session")
def clip_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip_vocabulary(tmp_path_factory.mktemp("vocabularies") / "clip")


@pytest.fixture(scope="session")
def bert_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert_vocabulary(tmp_path_factory.mktemp("vocabularies") / "bert")
