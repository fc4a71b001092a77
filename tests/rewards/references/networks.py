"""CLIP and ImageReward as plain functions of tensors under their published names, in float64 unless asked otherwise.

Written from the papers and the layouts: CLIP is Radford et al. 2021 (pre-norm transformers, the text one causal,
pooled at the end token); ImageReward is Xu et al. 2023 on BLIP (Li et al. 2022): a ViT, a BERT that attends to the
words, then to all the ViT's tokens, and an affine head on the first word.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tests.rewards.references.weights import BlipSizes, ClipSizes, Tower

Tensors = Mapping[str, Tensor]
Activation = Callable[[Tensor], Tensor]


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution function of x."""
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation."""
    return x * torch.sigmoid(1.702 * x)


def clip_scores(
    tensors: Tensors, sizes: ClipSizes, pixels: Tensor, ids: list[list[int]], activation: Activation
) -> Tensor:
    """Cosine of each image (B, 3, 224, 224) with its prompt's ids, shape (B,)."""
    text = torch.cat([text_features(tensors, sizes, prompt, activation) for prompt in ids])
    return torch.cosine_similarity(image_features(tensors, sizes, pixels, activation), text, dim=-1)


def image_features(tensors: Tensors, sizes: ClipSizes, pixels: Tensor, activation: Activation) -> Tensor:
    """Projected class token of CLIP's image tower, shape (B, projection)."""
    tower = sizes.vision
    x = _patches(pixels, tensors["visual.conv1.weight"])  # (B, patches, width)
    x = torch.cat([tensors["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1)
    x = _norm(x + tensors["visual.positional_embedding"], tensors, "visual.ln_pre", 1e-5)
    for n in range(tower.layers):
        x = _clip_block(x, tensors, f"visual.transformer.resblocks.{n}.", tower, activation, None)
    return _norm(x[:, 0], tensors, "visual.ln_post", 1e-5) @ tensors["visual.proj"]


def text_features(tensors: Tensors, sizes: ClipSizes, ids: list[int], activation: Activation) -> Tensor:
    """Projected end token of CLIP's text tower for one prompt padded with zeros to 77, shape (1, projection)."""
    end = ids.index(max(ids))
    padded = torch.tensor([*ids, *[0] * (77 - len(ids))])
    x = (tensors["token_embedding.weight"][padded] + tensors["positional_embedding"])[None]
    future = torch.full((77, 77), -torch.inf, dtype=x.dtype).triu(1)
    for n in range(sizes.text.layers):
        x = _clip_block(x, tensors, f"transformer.resblocks.{n}.", sizes.text, activation, future)
    return _norm(x[:, end], tensors, "ln_final", 1e-5) @ tensors["text_projection"]


def imagereward_scores(tensors: Tensors, sizes: BlipSizes, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """ImageReward of each image (B, 3, 224, 224) for its prompt's ids and mask (B, 35), shape (B,)."""
    seen, encoder = _blip_vision(tensors, sizes.vision, pixels), "blip.text_encoder."
    length = ids.shape[1]
    x = (tensors[f"{encoder}embeddings.word_embeddings.weight"][ids]
         + tensors[f"{encoder}embeddings.position_embeddings.weight"][:length])
    x = _norm(x, tensors, f"{encoder}embeddings.LayerNorm", 1e-12)
    padding = torch.where(mask[:, None, None, :] == 1, 0.0, -torch.inf).to(x.dtype)
    for n in range(sizes.text.layers):
        layer = f"{encoder}encoder.layer.{n}."
        for name, keys, bias in (("attention", None, padding), ("crossattention", seen, None)):
            q, k, v = (_linear(x if kind == "query" or keys is None else keys, tensors, f"{layer}{name}.self.{kind}")
                       for kind in ("query", "key", "value"))
            attended = _linear(_attend(q, k, v, sizes.text.heads, bias), tensors, f"{layer}{name}.output.dense")
            x = _norm(x + attended, tensors, f"{layer}{name}.output.LayerNorm", 1e-12)
        inner = gelu(_linear(x, tensors, f"{layer}intermediate.dense"))
        x = _norm(x + _linear(inner, tensors, f"{layer}output.dense"), tensors, f"{layer}output.LayerNorm", 1e-12)
    return (affine_head(tensors, x[:, 0], "mlp.") - 0.16717362830052426) / 1.0333394966054072


def affine_head(tensors: Tensors, features: Tensor, prefix: str = "") -> Tensor:
    """Five linear layers without activations, shape (B,)."""
    for n in (0, 2, 4, 6, 7):
        features = _linear(features, tensors, f"{prefix}layers.{n}")
    return features[:, 0]


def double(tensors: Tensors) -> dict[str, Tensor]:
    """The same weights in float64."""
    return {name: tensor.double() for name, tensor in tensors.items()}


def _blip_vision(tensors: Tensors, tower: Tower, pixels: Tensor) -> Tensor:
    encoder = "blip.visual_encoder."
    x = _patches(pixels, tensors[f"{encoder}patch_embed.proj.weight"]) + tensors[f"{encoder}patch_embed.proj.bias"]
    x = torch.cat([tensors[f"{encoder}cls_token"].expand(len(x), 1, -1), x], dim=1) + tensors[f"{encoder}pos_embed"]
    for n in range(tower.layers):
        block = f"{encoder}blocks.{n}."
        q, k, v = _linear(_norm(x, tensors, f"{block}norm1", 1e-6), tensors, f"{block}attn.qkv").chunk(3, dim=-1)
        x = x + _linear(_attend(q, k, v, tower.heads, None), tensors, f"{block}attn.proj")
        inner = gelu(_linear(_norm(x, tensors, f"{block}norm2", 1e-6), tensors, f"{block}mlp.fc1"))
        x = x + _linear(inner, tensors, f"{block}mlp.fc2")
    return _norm(x, tensors, f"{encoder}norm", 1e-6)


def _clip_block(
    x: Tensor, tensors: Tensors, block: str, tower: Tower, activation: Activation, bias: Tensor | None
) -> Tensor:
    normed = _norm(x, tensors, f"{block}ln_1", 1e-5)
    joint = normed @ tensors[f"{block}attn.in_proj_weight"].T + tensors[f"{block}attn.in_proj_bias"]
    x = x + _linear(_attend(*joint.chunk(3, dim=-1), tower.heads, bias), tensors, f"{block}attn.out_proj")
    inner = activation(_linear(_norm(x, tensors, f"{block}ln_2", 1e-5), tensors, f"{block}mlp.c_fc"))
    return x + _linear(inner, tensors, f"{block}mlp.c_proj")


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Multi-head attention of (B, L, width) queries on (B, S, width) keys and values."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, L, head)
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    weights = torch.softmax(logits if bias is None else logits + bias, dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def _patches(pixels: Tensor, kernel: Tensor) -> Tensor:
    """Each patch times the kernel (width, 3, p, p), row by row: (B, patches, width)."""
    size = kernel.shape[-1]
    cut = pixels.to(kernel.dtype).unfold(2, size, size).unfold(3, size, size)  # (B, 3, rows, columns, p, p)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2) @ kernel.flatten(1).T


def _linear(x: Tensor, tensors: Tensors, name: str) -> Tensor:
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def _norm(x: Tensor, tensors: Tensors, name: str, eps: float) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (variance + eps).sqrt() * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
