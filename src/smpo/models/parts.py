"""Loading and using the parts of a diffusers pipeline folder: what the families share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTokenizer, PreTrainedModel

from smpo.errors import ConfigError, DataError
from smpo.maths.schedule import scaled_linear_alphas_cumprod


def load_unet(folder: Path, *, dtype: torch.dtype) -> UNet2DConditionModel:
    """The UNet whose config and weights lie in `folder` itself."""
    return _load(UNet2DConditionModel, folder.parent, folder.name, dtype=dtype)


def load_vae(folder: Path, *, dtype: torch.dtype) -> AutoencoderKL:
    """The VAE of a pipeline, in eval mode. Float32 unless you know better: SDXL's overflows in fp16."""
    return _load(AutoencoderKL, folder, "vae", dtype=dtype).eval()


def load_text_encoder(kind: type[PreTrainedModel], folder: Path, subfolder: str) -> PreTrainedModel:
    """A text encoder of a pipeline, in float32 and eval mode."""
    return _load(kind, folder, subfolder, dtype=torch.float32).eval()


def load_tokenizer(folder: Path, subfolder: str) -> CLIPTokenizer:
    """A tokenizer of a pipeline.

    Raises:
        ConfigError: it cannot be loaded, or has no vocabulary (transformers 5 makes an empty one of missing files).
    """
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder=subfolder)
    except OSError as error:
        raise ConfigError(_not_loadable(folder, subfolder, error)) from error
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
        raise ConfigError(_not_loadable(folder, subfolder, ValueError("no vocabulary found")))
    return tokenizer


def scheduler_config(folder: Path) -> dict[str, Any]:
    """The scheduler's settings as published, whatever its class."""
    try:
        return json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(_not_loadable(folder, "scheduler", error)) from error


def alphas_cumprod_of(config: dict[str, Any]) -> Tensor:
    """alpha_bar table of a scheduler config, shape (T,), float64.

    Raises:
        ConfigError: a schedule other than `scaled_linear`, or one rescaled to zero terminal SNR.
    """
    if config.get("beta_schedule") != "scaled_linear" or config.get("rescale_betas_zero_snr"):
        raise ConfigError(
            "model: only the scaled_linear noise schedule of SD1.x and SDXL is supported, got "
            f"beta_schedule={config.get('beta_schedule')!r}, "
            f"rescale_betas_zero_snr={config.get('rescale_betas_zero_snr', False)}; use another base model"
        )
    return scaled_linear_alphas_cumprod(
        config["num_train_timesteps"], beta_start=config["beta_start"], beta_end=config["beta_end"]
    )


@torch.no_grad()
def posterior_moments(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latents' posterior, each (n, C, H / f, W / f), float32.

    Args:
        vae: with its `scaling_factor`.
        images: in [-1, 1], shape (n, 3, H, W).

    Raises:
        DataError: the encoder gave NaN or infinite values (SDXL's VAE does in fp16; use float32).
    """
    posterior = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
    mean, std = posterior.mean.float(), posterior.std.float()
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
        raise DataError(f"the VAE gave non-finite latents in {vae.dtype}; set cache.vae_dtype=float32")
    return mean * vae.config.scaling_factor, std * vae.config.scaling_factor


def token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Token ids padded and truncated to the tokenizer's limit, shape (n, L)."""
    return tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids


def _load(kind: Any, folder: Path, subfolder: str, *, dtype: torch.dtype) -> Any:
    try:
        return kind.from_pretrained(folder, subfolder=subfolder, dtype=dtype, use_safetensors=True)
    except (OSError, KeyError) as error:
        raise ConfigError(_not_loadable(folder, subfolder, error)) from error


def _not_loadable(path: Path, subfolder: str, error: Exception) -> str:
    reason = str(error).splitlines()[0]
    return f"model: cannot load '{subfolder}' of {path} ({reason}); give a diffusers pipeline folder or hub id"
