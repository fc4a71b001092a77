"""Checkpoints with random weights as the hub holds the published ones, and the real vocabularies."""

import gzip
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from smpo.rewards import open_clip
from tests.rewards.references import weights

GOLDENS = Path(__file__).parent / "goldens"
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


@lru_cache
def golden(name: str) -> dict:
    """What the originals gave: "clip" or "imagereward"."""
    return json.loads((GOLDENS / f"{name}.json").read_text())


@lru_cache
def golden_pixels() -> dict[str, Tensor]:
    """Thinned pixel values that the originals gave."""
    with np.load(GOLDENS / "preprocessing.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def save_clip_vocabulary(folder: Path) -> Path:
    """vocab.json and merges.txt of every published CLIP, with the settings that matter."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = gzip.decompress((GOLDENS / "clip-merges.txt.gz").read_bytes()).decode()
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters),
              *(merge.replace(" ", "") for merge in merges.split("\n")), "<|startoftext|>", "<|endoftext|>"]
    assert len(tokens) == 49408
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}))
    return folder


def save_bert_vocabulary(folder: Path) -> Path:
    """vocab.txt of bert-base-uncased."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_bytes(gzip.decompress((GOLDENS / "bert-vocab.txt.gz").read_bytes()))
    return folder


def save_hpsv2(folder: Path, tensors: dict[str, Tensor], *, name: str = "HPS_v2.1_compressed.pt") -> Path:
    """A checkpoint in HPSv2's layout: open_clip's names under `state_dict`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": tensors}, folder / name)
    return folder


def save_imagereward(folder: Path, tensors: dict[str, Tensor], med_config: dict) -> Path:
    """ImageReward.pt and med_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(med_config))
    return folder


def save_clip_folder(folder: Path, tensors: dict[str, Tensor], *, vision_head: int, activation: str) -> Path:
    """A CLIPModel folder of the hub, given open_clip's tensors; without a vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    config = open_clip.clip_config(tensors, vision_head=vision_head, activation=activation)
    config.save_pretrained(folder)
    converted = {name: tensor.contiguous().clone() for name, tensor in open_clip.to_transformers(tensors).items()}
    save_file(converted, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "image_mean": MEAN,
        "image_std": STD, "resample": 3}))
    return folder


def med_config(sizes: weights.BlipSizes) -> dict:
    """The published med_config.json, with the sizes of the text tower; its encoder_width is known to be wrong."""
    return {**golden("imagereward")["med_config"], "hidden_size": sizes.text.width, "intermediate_size": sizes.text.mlp,
            "num_attention_heads": sizes.text.heads, "num_hidden_layers": sizes.text.layers,
            "vocab_size": sizes.vocabulary, "encoder_width": sizes.text.width}


def _byte_letters() -> list[str]:
    """The printable letter of every byte, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
