"""The tiny bases: SD- and SDXL-shaped text encoders and UNet, one forward pass, and their diffusers folders."""

import copy
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from examples.tiny_world.tokenizer import MAX_TOKENS, build_tokenizer
from smpo.models.saving import make_portable

FAMILIES = ("sd", "sdxl")
TIME_IDS = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)  # original size, crop corner, target size: one value each, in px
PROJECTION_DIM = 64
TIME_ID_DIM = 16


def text_config(tokenizer: CLIPTokenizer, width: int, num_layers: int) -> CLIPTextConfig:
    """Configuration of a small CLIP text encoder over the world's vocabulary."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=PROJECTION_DIM,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_unet(cross_attention_dim: int, *, is_sdxl: bool) -> UNet2DConditionModel:
    """A fresh UNet of about 2.8 M parameters for 8 x 8 x 4 latents; `is_sdxl` adds the pooled text and time ids."""
    extra = {}
    if is_sdxl:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_ID_DIM,
            "projection_class_embeddings_input_dim": len(TIME_IDS) * TIME_ID_DIM + PROJECTION_DIM,
        }
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 96),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=4,
        norm_num_groups=8,
        **extra,
    )


def build_scheduler() -> DDIMScheduler:
    """SD's own noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
        timestep_spacing="leading",
    )


class BaseModel(nn.Module):
    """Text encoders and UNet of one family, trained together.

    Args:
        family: "sd" (one text encoder, last hidden state) or "sdxl" (two, penultimate ones, pooled text, time ids).
        tokenizer: the tokenizer whose ids `forward` takes.
    """

    def __init__(self, family: str, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        if family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}; choose a known one")
        self.family = family
        if family == "sd":
            self.text_encoder = CLIPTextModel(text_config(tokenizer, 64, 2))
            self.unet = build_unet(64, is_sdxl=False)
            return
        self.text_encoder = CLIPTextModel(text_config(tokenizer, 32, 2))
        self.text_encoder_2 = CLIPTextModelWithProjection(text_config(tokenizer, 64, 3))
        self.unet = build_unet(32 + 64, is_sdxl=True)

    def forward(self, x_t: Tensor, timesteps: Tensor, input_ids: Tensor, is_empty: Tensor) -> Tensor:
        """Predicted noise, shape of `x_t`.

        Args:
            x_t: noisy latents, (B, 4, 8, 8).
            timesteps: (B,), 0..999.
            input_ids: token ids of the captions, (B, 32).
            is_empty: True where the caption is empty, (B,); SDXL then sees zeros (force_zeros_for_empty_prompt).
        """
        if self.family == "sd":
            return self.unet(x_t, timesteps, self.text_encoder(input_ids).last_hidden_state).sample
        first = self.text_encoder(input_ids, output_hidden_states=True)
        second = self.text_encoder_2(input_ids, output_hidden_states=True)
        kept = (~is_empty).to(x_t.dtype)[:, None]
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1) * kept[..., None]
        time_ids = x_t.new_tensor(TIME_IDS).expand(len(x_t), -1)
        added = {"text_embeds": second.text_embeds * kept, "time_ids": time_ids}
        return self.unet(x_t, timesteps, hidden, added_cond_kwargs=added).sample


def save_base(model: BaseModel, vae: AutoencoderKL, out: Path) -> None:
    """Write model and VAE as a diffusers folder with fp16 safetensors that loads in float32."""
    model, vae = copy.deepcopy((model, vae))  # the caller goes on in float32
    tokenizer = build_tokenizer()
    parts = {"vae": vae, "text_encoder": model.text_encoder, "unet": model.unet, "scheduler": build_scheduler()}
    if model.family == "sd":
        pipeline = StableDiffusionPipeline(
            **parts, tokenizer=tokenizer, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    else:
        pipeline = StableDiffusionXLPipeline(
            **parts,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            text_encoder_2=model.text_encoder_2,
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )
    pipeline.to(dtype=torch.float16).save_pretrained(out)
    make_portable(out)
