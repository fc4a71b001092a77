"""Random weights under the published names, the same on every machine: each tensor has its own numpy seed.

Default initialisation would hide errors (norms of exactly 1 and 0, zero biases), so everything is perturbed.
docs/scorers.md (Parity) has the results.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tower:
    """Sizes of one transformer tower; `patch` is in px, for image towers only."""

    width: int
    layers: int
    mlp: int
    head: int
    patch: int = 0

    @property
    def heads(self) -> int:
        return self.width // self.head


@dataclass(frozen=True)
class ClipSizes:
    """Sizes of a CLIP for 224 px images, 77 tokens and the usual vocabulary."""

    vision: Tower
    text: Tower
    projection: int
    vocabulary: int = 49408


@dataclass(frozen=True)
class BlipSizes:
    """Sizes of an ImageReward for 224 px images."""

    vision: Tower
    text: Tower
    vocabulary: int = 30524


REDUCED_HPS = ClipSizes(Tower(160, 3, 640, 80, 32), Tower(128, 3, 512, 64), 96)
REDUCED_OPENAI = ClipSizes(Tower(128, 3, 512, 64, 32), Tower(64, 3, 256, 64), 96)
REDUCED_AESTHETIC = ClipSizes(Tower(128, 3, 512, 64, 32), Tower(64, 1, 256, 64), 768)
REDUCED_BLIP = BlipSizes(Tower(128, 3, 512, 64, 32), Tower(128, 3, 512, 64))
VIT_H = ClipSizes(Tower(1280, 32, 5120, 80, 14), Tower(1024, 24, 4096, 64), 1024)
VIT_L = ClipSizes(Tower(1024, 24, 4096, 64, 14), Tower(768, 12, 3072, 64), 768)
BLIP_L = BlipSizes(Tower(1024, 24, 4096, 64, 16), Tower(768, 12, 3072, 64))


def open_clip_shapes(sizes: ClipSizes) -> Shapes:
    """Names and shapes of a checkpoint in open_clip's and OpenAI's layout."""
    vision, text = sizes.vision, sizes.text
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (), "positional_embedding": (77, text.width), "text_projection": (text.width, sizes.projection),
        "token_embedding.weight": (sizes.vocabulary, text.width), "ln_final.weight": (text.width,),
        "ln_final.bias": (text.width,), "visual.class_embedding": (vision.width,),
        "visual.positional_embedding": ((224 // vision.patch) ** 2 + 1, vision.width),
        "visual.conv1.weight": (vision.width, 3, vision.patch, vision.patch),
        "visual.proj": (vision.width, sizes.projection),
    }
    for norm in ("visual.ln_pre", "visual.ln_post"):
        shapes |= {f"{norm}.weight": (vision.width,), f"{norm}.bias": (vision.width,)}
    for prefix, tower in (("visual.", vision), ("", text)):
        for n in range(tower.layers):
            block = f"{prefix}transformer.resblocks.{n}."
            shapes |= {f"{block}{name}": shape for name, shape in _open_clip_block(tower).items()}
    return shapes


def imagereward_shapes(sizes: BlipSizes) -> Shapes:
    """Names and shapes of ImageReward.pt, with the parts of it that scoring does not use."""
    vision, text = sizes.vision, sizes.text
    shapes: dict[str, tuple[int, ...]] = {
        "blip.visual_encoder.cls_token": (1, 1, vision.width),
        "blip.visual_encoder.pos_embed": (1, (224 // vision.patch) ** 2 + 1, vision.width),
        "blip.visual_encoder.patch_embed.proj.weight": (vision.width, 3, vision.patch, vision.patch),
        "blip.visual_encoder.patch_embed.proj.bias": (vision.width,),
        "blip.text_encoder.embeddings.word_embeddings.weight": (sizes.vocabulary, text.width),
        "blip.text_encoder.embeddings.position_embeddings.weight": (512, text.width),
        **_norm("blip.visual_encoder.norm", vision.width),
        **_norm("blip.text_encoder.embeddings.LayerNorm", text.width),
        **_linear("blip.vision_proj", vision.width, 256), **_linear("blip.text_proj", text.width, 256),
        **head_shapes(text.width, "mlp."),
    }
    for n in range(vision.layers):
        block = f"blip.visual_encoder.blocks.{n}."
        shapes |= {**_norm(f"{block}norm1", vision.width), **_norm(f"{block}norm2", vision.width),
                   **_linear(f"{block}attn.qkv", vision.width, 3 * vision.width),
                   **_linear(f"{block}attn.proj", vision.width, vision.width),
                   **_linear(f"{block}mlp.fc1", vision.width, vision.mlp),
                   **_linear(f"{block}mlp.fc2", vision.mlp, vision.width)}
    for n in range(text.layers):
        block = f"blip.text_encoder.encoder.layer.{n}."
        for attention, keys in (("attention", text.width), ("crossattention", vision.width)):
            shapes |= {**_linear(f"{block}{attention}.self.query", text.width, text.width),
                       **_linear(f"{block}{attention}.self.key", keys, text.width),
                       **_linear(f"{block}{attention}.self.value", keys, text.width),
                       **_linear(f"{block}{attention}.output.dense", text.width, text.width),
                       **_norm(f"{block}{attention}.output.LayerNorm", text.width)}
        shapes |= {**_linear(f"{block}intermediate.dense", text.width, text.mlp),
                   **_linear(f"{block}output.dense", text.mlp, text.width),
                   **_norm(f"{block}output.LayerNorm", text.width)}
    return shapes


def head_shapes(width: int, prefix: str = "") -> Shapes:
    """Names and shapes of the affine head on features of `width`."""
    widths = (width, 1024, 128, 64, 16, 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for n, inner, outer in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        shapes |= _linear(f"{prefix}layers.{n}", inner, outer)
    return shapes


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """One tensor, float32: norms near 1, biases near 0, matrices 1.5 / sqrt(inputs), heads 1 / sqrt(inputs)."""
    if name == "logit_scale":
        return torch.tensor(4.6052)
    noise = torch.from_numpy(
        np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape, dtype=np.float32))
    if any(part in name for part in ("embedding", "cls_token", "pos_embed")) and "LayerNorm" not in name:
        return 0.3 * noise
    if len(shape) == 1:
        is_norm_weight = name.endswith("weight")
        return 0.1 * noise + (1 if is_norm_weight else 0)
    inputs = shape[0] if name in ("visual.proj", "text_projection") else int(np.prod(shape[1:]))
    return noise * ((1.0 if "layers." in name else 1.5) / inputs**0.5)


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of all these names."""
    return {name: random_tensor(name, shape, seed) for name, shape in shapes.items()}


def _linear(name: str, inner: int, outer: int) -> Shapes:
    return {f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _open_clip_block(tower: Tower) -> Shapes:
    return {
        **_norm("ln_1", tower.width), **_norm("ln_2", tower.width),
        "attn.in_proj_weight": (3 * tower.width, tower.width), "attn.in_proj_bias": (3 * tower.width,),
        **_linear("attn.out_proj", tower.width, tower.width), **_linear("mlp.c_fc", tower.width, tower.mlp),
        **_linear("mlp.c_proj", tower.mlp, tower.width),
    }
