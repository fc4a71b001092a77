"""Trained adapters as files: diffusers' layout, and kohya's for ComfyUI and A1111."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import ModelMixin
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from smpo.training.cards import DORA, lora_card
from smpo.training.options import LoraOptions
from smpo.training.policy.lora import ADAPTER
from smpo.training.run import Run

SD2_WIDTH = 1024  # of the text states; SD1.x has 768


def save_adapters(run: Run, options: LoraOptions, denoiser: ModelMixin, folder: Path) -> None:
    """Write the adapters of `denoiser`, with a card that says how to load them.

    pytorch_lora_weights.safetensors is for `load_lora_weights` of diffusers, <name>_comfyui.safetensors for ComfyUI and
    A1111; DoRA has only the former, with a warning.
    """
    tensors = adapter_tensors(denoiser)
    StableDiffusionLoraLoaderMixin.save_lora_weights(folder, unet_lora_layers=diffusers_tensors(tensors, options))
    (folder / "README.md").write_text(lora_card(run, options))
    if options.dora:
        warnings.warn(f"training.lora.dora=true. {DORA}", stacklevel=2)
        return
    names = kohya_tensors(tensors, options, lambda module: run.family.kohya_name(module, denoiser))
    metadata = {
        "ss_network_module": "networks.lora", "ss_network_dim": str(options.rank),
        "ss_network_alpha": str(options.scaled_by), "ss_output_name": run.name,
        "ss_base_model_version": run.family.kohya_version,
        "ss_v2": str(denoiser.config.cross_attention_dim == SD2_WIDTH),  # by these two A1111 tells which models it fits
    }
    save_file(names, folder / f"{run.name}_comfyui.safetensors", metadata=metadata)


def adapter_tensors(denoiser: ModelMixin) -> dict[str, Tensor]:
    """peft's tensors on the CPU: <module>.lora_A.weight (r, in, ...) and .lora_B.weight (out, r, ...).

    With DoRA also <module>.lora_magnitude_vector.
    """
    state = get_peft_model_state_dict(denoiser, adapter_name=ADAPTER, save_embedding_layers=False)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def diffusers_tensors(tensors: Mapping[str, Tensor], options: LoraOptions) -> dict[str, Tensor]:
    """peft's tensors with alpha / rank multiplied into B.

    This layout has no place for alpha, and its readers add B A as it is; diffusers since 0.34 reads alpha from the
    file's metadata, older ones and others do not.
    """
    scale = options.scaled_by / options.rank
    return {name: tensor * scale if ".lora_B." in name else tensor for name, tensor in tensors.items()}


def kohya_tensors(
    tensors: Mapping[str, Tensor], options: LoraOptions, name_of: Callable[[str], str]
) -> dict[str, Tensor]:
    """peft's tensors under kohya's names: a reader adds alpha / rank up @ down to the weight of the module."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, part = name.partition(".lora_")
        side = {"A.weight": "lora_down", "B.weight": "lora_up"}[part]
        found[f"{name_of(module)}.{side}.weight"] = tensor
        found[f"{name_of(module)}.alpha"] = torch.tensor(float(options.scaled_by))
    return found
