"""Builders of random-weight pipelines at toy size, in exactly the layout of SD1.5 and SDXL."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SD_SCHEDULE = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000,
    "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False,
}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIPTokenizer over single lower-case characters, written to and read from disk."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def text_config(vocabulary: CLIPTokenizer, *, width: int = 16, projection: int = 16) -> CLIPTextConfig:
    """Config of a two-layer text encoder."""
    return CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=width, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, projection_dim=projection,
        bos_token_id=vocabulary.bos_token_id, eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.eos_token_id,
    )


def vae() -> AutoencoderKL:
    """A VAE of factor 4: 32 px images, 4x8x8 latents."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(8, 8, 8), norm_num_groups=4, latent_channels=4, sample_size=32, scaling_factor=0.5,
    )


def unet(**extra: object) -> UNet2DConditionModel:
    """A UNet of some ten thousand parameters on 4x8x8 latents."""
    settings = {
        "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": 16,
        "norm_num_groups": 4, "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**{**settings, **extra})


def save_random_sd(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """`folder`, holding a random StableDiffusionPipeline."""
    torch.manual_seed(seed)
    words = tokenizer(folder / "words")
    StableDiffusionPipeline(
        vae=vae(), text_encoder=CLIPTextModel(text_config(words)), tokenizer=words, unet=unet(),
        scheduler=DDIMScheduler(**SD_SCHEDULE, prediction_type=prediction_type), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_random_sdxl(folder: Path, *, seed: int = 0) -> Path:
    """`folder`, holding a random StableDiffusionXLPipeline."""
    torch.manual_seed(seed)
    words = tokenizer(folder / "words")
    StableDiffusionXLPipeline(
        vae=vae(), text_encoder=CLIPTextModel(text_config(words)), tokenizer=words,
        text_encoder_2=CLIPTextModelWithProjection(text_config(words)), tokenizer_2=words,
        unet=unet(cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=8,
                  projection_class_embeddings_input_dim=6 * 8 + 16, use_linear_projection=True),
        scheduler=DDIMScheduler(**SD_SCHEDULE), force_zeros_for_empty_prompt=True,
    ).save_pretrained(folder)
    return folder
