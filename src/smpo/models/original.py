"""The original layout of SD1.x and SDXL: how one file names and stores the tensors of a diffusers pipeline.

One table for both directions: each `Entry` says which tensors of diffusers' parts one tensor of the file is made of.
Prefixes and names are those of CompVis' Stable Diffusion (ldm) and Stability's generative-models (sgm), which ComfyUI,
A1111 and diffusers' `from_single_file` read.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from smpo.core.errors import ConfigError
from smpo.models.kohya import OUTSIDE_BLOCKS, original_module
from smpo.models.saving import old_name

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT = {
    "sd": {"text_encoder": "cond_stage_model.transformer."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}
VAE_BLOCKS = {"DownEncoderBlock2D", "UpDecoderBlock2D"}
OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class Entry:
    """One tensor of a single file.

    Attributes:
        name: in the file.
        sources: the tensors of the part that it holds, in diffusers' names.
        form: how: as it is; a linear weight (out, in) as a convolution (out, in, 1, 1); transposed; several stacked
            along the first axis.
    """

    name: str
    sources: tuple[str, ...]
    form: Literal["same", "convolution", "transposed", "stacked"] = "same"

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Shape in the file, from those of the part's tensors."""
        first, *rest = shapes[self.sources[0]]
        if self.form == "convolution":
            return first, *rest, 1, 1
        if self.form == "transposed":
            return *rest, first
        return sum(shapes[source][0] for source in self.sources), *rest

    def merged(self, tensors: Sequence[Tensor]) -> Tensor:
        """The file's tensor, of those of the part."""
        if self.form == "convolution":
            return tensors[0][:, :, None, None]
        if self.form == "transposed":
            return tensors[0].T.contiguous()
        return torch.cat(list(tensors)) if self.form == "stacked" else tensors[0]

    def taken(self, tensor: Tensor, source: str, shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
        """The part's tensor `source`, out of the file's."""
        if self.form == "convolution":
            return tensor.reshape(shapes[source])
        if self.form == "transposed":
            return tensor.T.contiguous()
        if self.form == "stacked":
            sizes = [shapes[name][0] for name in self.sources]
            return tensor.split(sizes)[self.sources.index(source)].contiguous()
        return tensor


def entries(family: str, part: str, names: Iterable[str], config: Mapping[str, Any]) -> list[Entry]:
    """How a single file holds a part of a pipeline.

    Args:
        family: "sd" or "sdxl".
        part: "unet", "vae", "text_encoder" or "text_encoder_2".
        names: of the part's tensors; those of text encoders with or without "text_model.".
        config: of the part.

    Raises:
        ConfigError: the original layout has no place for some tensor.
    """
    names = [name for name in names if not name.endswith("position_ids")]
    if part == "unet":
        return _unet(names, config)
    if part == "vae":
        return _vae(names, config)
    prefix = TEXT[family][part]
    names = [old_name(name) for name in names]
    if part == "text_encoder_2":
        return _open_clip(names, prefix)
    return [Entry(prefix + name, (name,)) for name in names]


def current_name(part: str, name: str) -> str:
    """The name that `entries` uses for a tensor of a part's files: those of old VAEs and new text encoders differ."""
    if part.startswith("text_encoder"):
        return old_name(name)
    if part == "vae" and ".attentions." in name:
        before, _, attribute = name.rpartition(".attentions.0.")
        module, _, end = attribute.rpartition(".")
        return f"{before}.attentions.0.{OLD_VAE_ATTENTION.get(module, module)}.{end}"
    return name


def _unet(names: Sequence[str], config: Mapping[str, Any]) -> list[Entry]:
    _check_blocks("UNet", [*config["down_block_types"], *config["up_block_types"]], BLOCKS)
    if not isinstance(config.get("layers_per_block", 2), int):
        raise ConfigError("a UNet of several layers_per_block has no single-file layout; use its diffusers folder")
    config = {"layers_per_block": 2, **config}
    found = []
    for name in names:
        module, _, end = name.rpartition(".")
        if module not in OUTSIDE_BLOCKS and not module.startswith(("down_blocks.", "mid_block.", "up_blocks.")):
            raise _no_place(f"unet/{name}")
        found.append(Entry(f"{UNET}{original_module(module, config)}.{end}", (name,)))
    return found


def _vae(names: Sequence[str], config: Mapping[str, Any]) -> list[Entry]:
    _check_blocks("VAE", [*config["down_block_types"], *config["up_block_types"]], VAE_BLOCKS)
    last = len(config["block_out_channels"]) - 1
    found = []
    for name in names:
        module, _, end = name.rpartition(".")
        is_linear = ".attentions." in module and end == "weight" and not module.endswith("group_norm")
        form: Literal["same", "convolution"] = "convolution" if is_linear else "same"
        found.append(Entry(f"{VAE}{_vae_module(module, last)}.{end}", (name,), form))
    return found


def _vae_module(module: str, last: int) -> str:
    """Where the original autoencoder keeps a module of diffusers'; its decoder counts blocks from the output."""
    if module in ("quant_conv", "post_quant_conv") or re.fullmatch(r"(en|de)coder\.conv_(in|out)", module):
        return module
    side, _, inner = module.partition(".")
    if inner == "conv_norm_out":
        return f"{side}.norm_out"
    if match := re.fullmatch(r"mid_block\.resnets\.(\d)\.(\w+)", inner):
        return f"{side}.mid.block_{int(match[1]) + 1}.{_vae_resnet(match[2])}"
    if match := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", inner):
        return f"{side}.mid.attn_1.{VAE_ATTENTION[match[1]]}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets\.(\d+)\.(\w+)|(down|up)samplers\.0\.conv)", inner)
    if match is None:
        raise _no_place(f"vae/{module}")
    way, number = match[1], int(match[2])
    block = f"{side}.{way}.{number if way == 'down' else last - number}"
    return f"{block}.block.{match[4]}.{_vae_resnet(match[5])}" if match[4] else f"{block}.{way}sample.conv"


def _vae_resnet(module: str) -> str:
    return "nin_shortcut" if module == "conv_shortcut" else module


def _open_clip(names: Sequence[str], prefix: str) -> list[Entry]:
    """SDXL's second encoder in OpenCLIP's names: query, key and value as one, the projection the other way round."""
    found = []
    for name in names:
        if name in OPEN_CLIP:
            found.append(Entry(prefix + OPEN_CLIP[name], (name,)))
        elif name == "text_projection.weight":
            found.append(Entry(f"{prefix}text_projection", (name,), "transposed"))
        else:
            match = re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
            if match is None:
                raise _no_place(f"text_encoder_2/{name}")
            layer, module, end = match.groups()
            block = f"{prefix}transformer.resblocks.{layer}."
            if module in OPEN_CLIP_LAYER:
                found.append(Entry(f"{block}{OPEN_CLIP_LAYER[module]}.{end}", (name,)))
            elif module == "self_attn.q_proj":
                three = tuple(name.replace("q_proj", f"{letter}_proj") for letter in "qkv")
                found.append(Entry(f"{block}attn.in_proj_{end}", three, "stacked"))
    return found


def _check_blocks(network: str, found: Sequence[str], known: set[str]) -> None:
    others = sorted(set(found) - known)
    if others:
        raise ConfigError(f"a {network} with {', '.join(others)} has no single-file layout; use its diffusers folder")


def _no_place(name: str) -> ConfigError:
    return ConfigError(f"the single-file layout has no place for {name}; use the diffusers folder")
