"""The scripts that made the tiny models: tokenizer, captions, and a few steps of each training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from transformers import CLIPTokenizer

from examples.tiny_world.captions import noisy_caption
from examples.tiny_world.tokenizer import build_tokenizer, encode, save_tokenizer, world_words
from smpo.tiny.prompts import parse, sample_prompts, sample_scenes

TOKENIZER = build_tokenizer()
ROOT = Path(__file__).parents[2]


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


def steps_of(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "training_log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_each_script_trains_a_few_steps_and_its_model_loads(tmp_path):
    """As the README's commands: the VAE, its decoder further, both bases, a reward; then the measurements."""
    few = ["--steps", "2", "--images", "12"]

    def run(script: str, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", f"examples.tiny_world.{script}", *words], cwd=ROOT, check=True, text=True,
            capture_output=True, timeout=300, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        ).stdout

    first, vae, reward = (str(tmp_path / name) for name in ("first", "vae", "reward"))
    run("train_vae", "--out", first, *few)
    run("train_vae", "--encoder", first, "--out", vae, *few)
    latents = [AutoencoderKL.from_pretrained(folder).encoder.state_dict() for folder in (first, vae)]
    assert all(torch.equal(tensor, latents[1][name]) for name, tensor in latents[0].items())
    for family in ("sd", "sdxl"):
        base = str(tmp_path / family)
        run("train_base", "--family", family, "--vae", vae, "--out", base, "--batch", "4", *few)
        assert DiffusionPipeline.from_pretrained(base).unet.config.sample_size == 8
        assert steps_of(tmp_path / family) == [0, 1]
    run("train_clip", "--name", "tiny-reward", "--vae", vae, "--out", reward, "--batch", "4", *few)
    measured = run("measure", "--vae", vae, "--base", str(tmp_path / "sd"), "--reward", reward, "--num", "2",
                   "--steps", "2")
    numbers = [json.loads(line) for line in measured.splitlines()]
    assert numbers[0]["images"] == 2 and numbers[1]["model"] == "reward" and 0 <= numbers[2]["verifier"] <= 1
