"""The tiny CLIPModels: building them, their processor, scoring image-prompt pairs, and their transformers folders."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from examples.tiny_world.tokenizer import MAX_TOKENS, encode, save_tokenizer
from smpo.models.saving import declare_float32

TEXT_WIDTH = 64
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of OpenAI's CLIP, per channel, for images in [0, 1]
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def build_clip(tokenizer: CLIPTokenizer, *, width: int, num_layers: int) -> CLIPModel:
    """A fresh CLIPModel for 64 px images in patches of 8 px; width and layers are the image tower's."""
    text = {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 2 * TEXT_WIDTH,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": 4,
        "num_hidden_layers": num_layers,
        "image_size": 64,
        "patch_size": 8,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))


def build_processor() -> CLIPImageProcessor:
    """CLIP's image processor at 64 px."""
    return CLIPImageProcessor(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
        resample=Image.Resampling.BICUBIC,
    )


def normalised(images: Tensor) -> Tensor:
    """uint8 images (B, 3, 64, 64) as the model wants them: the processor's normalisation, float32."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (images.float() / 255 - mean) / std


def embeddings(model: CLIPModel, pixel_values: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Unit image and text embeddings, (B, D) and (N, D)."""
    image = model.visual_projection(model.vision_model(pixel_values).pooler_output)
    text = model.text_projection(model.text_model(input_ids).pooler_output)
    return torch.nn.functional.normalize(image, dim=-1), torch.nn.functional.normalize(text, dim=-1)


@torch.no_grad()
def clip_scores(model: CLIPModel, tokenizer: CLIPTokenizer, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Cosine of each uint8 image (B, 3, 64, 64) and its prompt, float32 (B,) in [-1, 1]."""
    image, text = embeddings(model, normalised(images), encode(tokenizer, prompts))
    return (image * text).sum(dim=-1)


def save_clip(model: CLIPModel, tokenizer: CLIPTokenizer, out: Path) -> None:
    """Write model (fp16 safetensors that load in float32), tokenizer and processor into one folder."""
    model.half().save_pretrained(out)
    model.float()
    declare_float32(out / "config.json")
    save_tokenizer(tokenizer, out)
    build_processor().save_pretrained(out)
