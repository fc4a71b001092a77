"""ImageReward v1.0: BLIP's image tower, its text tower that looks at the image, and an affine head."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from smpo.core.errors import DataError
from smpo.rewards.affine_head import AffineHead
from smpo.rewards.learnt import LearntScorer
from smpo.rewards.preprocessing import ShortestSide
from smpo.rewards.settings import ImageRewardSettings
from smpo.rewards.tokenisation import BERT_FILES, BertIds, ImageRewardTokens
from smpo.rewards.weights import Tensors, existing, load_model, local_file, local_folder, read_tensors, shapes_of

WEIGHTS, TEXT_CONFIG = "ImageReward.pt", "med_config.json"
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the head's output, in the original's source
HEAD_WIDTH = 64  # of an attention head of BLIP's image tower
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
PROMPTS_KEPT = 65536  # 560 bytes of ids and mask each

VISION_NAMES = {
    "cls_token": "embeddings.class_embedding", "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding", "norm": "post_layernorm",
}
VISION_BLOCK_NAMES = {
    "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.qkv": "self_attn.qkv", "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}


@dataclass(frozen=True, kw_only=True)
class ImageReward(ImageRewardSettings, LearntScorer):
    """ImageReward v1.0; its settings are explained in `ImageRewardSettings`."""

    name: ClassVar[str] = "imagereward"
    units: ClassVar[str] = "standard deviations of its training ratings"
    bounds: ClassVar[None] = None

    @property
    def preprocessing(self) -> ShortestSide:
        """The image part."""
        return ShortestSide(library="torchvision")

    @cached_property
    def _weight_files(self) -> list[Path]:
        return [local_file(self.source, self.revision, name) for name in (WEIGHTS, TEXT_CONFIG)]

    @cached_property
    def _tokenizer_files(self) -> list[Path]:
        return existing(local_folder(self.tokenizer, None, BERT_FILES), BERT_FILES)

    def _load(self, device: torch.device, dtype: torch.dtype) -> "LoadedImageReward":
        tokens = ImageRewardTokens(local_folder(self.tokenizer, None, BERT_FILES))
        weights, config = self._weight_files
        tensors = to_transformers(read_tensors([weights]))
        shapes = shapes_of(tensors)
        text_config = read_text_config(config, shapes)
        model = load_model(lambda: ImageRewardModel(shapes, text_config), tensors, dtype=dtype, origin=weights,
                           device=device)
        model.head.float()
        return LoadedImageReward(model, tokens)


class ImageRewardModel(nn.Module):
    """The three parts, with the sizes that the checkpoint's shapes tell."""

    def __init__(self, tensors: Tensors, text_config: BlipTextConfig) -> None:
        super().__init__()
        self.vision = BlipVisionModel(_vision_config(tensors))
        self.text = BlipTextModel(text_config, add_pooling_layer=False)
        self.head = AffineHead(_below("head.", tensors))

    def forward(self, pixel_values: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Normalised rating of each image (B, 3, H, W) for its prompt's ids and mask (B, 35): (B,), float32."""
        seen = self.vision(pixel_values=pixel_values).last_hidden_state  # (B, patches + 1, width)
        read = self.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state
        return (self.head(read[:, 0].float()) - MEAN) / STD


class LoadedImageReward:
    """The model on one device, with the token ids of the prompts that it has scored."""

    def __init__(self, model: ImageRewardModel, tokens: ImageRewardTokens) -> None:
        self.device, self.dtype = model.vision.device, model.vision.dtype
        self.model = model
        self._tokens = lru_cache(maxsize=PROMPTS_KEPT)(tokens.__call__)

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Rating of each image's pixel values (B, 3, 224, 224) for its prompt, shape (B,), float32."""
        tokens: list[BertIds] = [self._tokens(prompt) for prompt in prompts]
        ids = torch.stack([token.ids for token in tokens]).to(self.device)
        mask = torch.stack([token.mask for token in tokens]).to(self.device)
        return self.model(inputs.to(self.dtype), ids, mask)


def to_transformers(tensors: Tensors) -> Tensors:
    """The published tensors under the names of `ImageRewardModel`; tensors that scoring does not use are left out."""
    converted: Tensors = {}
    for name, tensor in tensors.items():
        if name.startswith("blip.visual_encoder."):
            converted[f"vision.{_vision_name(name.removeprefix('blip.visual_encoder.'))}"] = tensor
        elif name.startswith("mlp."):
            converted[f"head.{name.removeprefix('mlp.')}"] = tensor
        elif not name.startswith(UNUSED):
            converted[f"text.{name.removeprefix('blip.text_encoder.')}"] = tensor
    return converted


def _vision_name(name: str) -> str:
    if name in VISION_NAMES:
        return VISION_NAMES[name]
    module, _, kind = name.rpartition(".")
    if not module.startswith("blocks."):
        return f"{VISION_NAMES.get(module, module)}.{kind}"
    _, number, inner = module.split(".", 2)
    return f"encoder.layers.{number}.{VISION_BLOCK_NAMES.get(inner, inner)}.{kind}"


def read_text_config(file: Path, tensors: Tensors) -> BlipTextConfig:
    """The text tower's configuration: published settings, and sizes from the checkpoint's shapes.

    Attention in both directions needs `is_decoder` in the configuration (for the layers that look at the image) but
    not in the call. The image tower's width replaces the file's `encoder_width`, as in the original.

    Raises:
        DataError: the file or the checkpoint is not ImageReward's.
    """
    try:
        settings: dict[str, Any] = json.loads(file.read_text())
        words, first = tensors["text.embeddings.word_embeddings.weight"], "text.encoder.layer.0."
        return BlipTextConfig(
            vocab_size=len(words), hidden_size=words.shape[1], is_decoder=True, pad_token_id=0,
            encoder_hidden_size=tensors[f"{first}crossattention.self.key.weight"].shape[1],
            intermediate_size=len(tensors[f"{first}intermediate.dense.weight"]),
            max_position_embeddings=len(tensors["text.embeddings.position_embeddings.weight"]),
            num_hidden_layers=_count("text.encoder.layer.", tensors), hidden_act=settings["hidden_act"],
            num_attention_heads=settings["num_attention_heads"], layer_norm_eps=settings["layer_norm_eps"])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{file} and the checkpoint beside it are not ImageReward's ({error}); "
                        "download both") from error


def _vision_config(tensors: Tensors) -> BlipVisionConfig:
    """The image tower's configuration; eps is 1e-6, unlike transformers' default."""
    patches, positions = tensors["vision.embeddings.patch_embedding.weight"], "vision.embeddings.position_embedding"
    grid = round((tensors[positions].shape[1] - 1) ** 0.5)
    return BlipVisionConfig(
        hidden_size=len(patches), intermediate_size=len(tensors["vision.encoder.layers.0.mlp.fc1.weight"]),
        num_hidden_layers=_count("vision.encoder.layers.", tensors), num_attention_heads=len(patches) // HEAD_WIDTH,
        image_size=grid * patches.shape[-1], patch_size=patches.shape[-1], hidden_act="gelu", layer_norm_eps=1e-6)


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _count(prefix: str, tensors: Tensors) -> int:
    """Number of blocks whose tensors start with `prefix`."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)})
