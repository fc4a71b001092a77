"""Stable Diffusion 1.x (and 2.x): one text encoder, eps or v prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from smpo.errors import ConfigError
from smpo.maths.schedule import alpha_bar, v_to_noise
from smpo.models import kohya, parts, saving
from smpo.models.sources import local_pipeline, local_unet
from smpo.records import Conditioning
from smpo.transfer import send

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True, kw_only=True)
class StableDiffusion:
    """The family of StableDiffusionPipeline.

    Attributes:
        source: diffusers folder, hub id, `package://` data or single file.
        revision: hub revision; None is the newest.
    """

    source: str
    revision: str | None = None

    pipeline_options: ClassVar[dict[str, Any]] = {"safety_checker": None, "requires_safety_checker": False}
    kohya_version: ClassVar[str] = "sd_v1"

    @cached_property
    def folder(self) -> Path:
        """The local diffusers folder of the source, downloaded where it is a hub id."""
        return local_pipeline(self.source, revision=self.revision)

    @cached_property
    def scheduler_config(self) -> dict:
        """The published scheduler settings; a prediction type that cannot be converted to noise is refused."""
        config = parts.scheduler_config(self.folder)
        predicted = config.get("prediction_type", "epsilon")
        if predicted not in PREDICTION_TYPES:
            raise ConfigError(f"model: prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {predicted}")
        return config

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """alpha_bar table, shape (T,), float64."""
        return parts.alphas_cumprod_of(self.scheduler_config)

    def load_unet(self, source: str | None = None, *, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
        """The UNet of `source` (a pipeline or a UNet folder), of the family's own source when None."""
        return parts.load_unet(self.folder / "unet" if source is None else local_unet(source), dtype=dtype)

    def load_vae(self, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        """The VAE."""
        return parts.load_vae(self.folder, dtype=dtype)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """What the UNet needs of each prompt: {"hidden": last hidden states (n, L, D)}, float32, on the CPU."""
        tokenizer, encoder = self._text
        hidden = encoder.to(device)(parts.token_ids(tokenizer, prompts).to(device)).last_hidden_state
        return {"hidden": hidden.cpu()}

    def condition(self, prompts: Mapping[str, Tensor], sizes: Tensor) -> Conditioning:
        """Conditioning of n images from their encoded prompts; `sizes` (n, 6) does not matter to this family."""
        return Conditioning(dict(prompts))

    def predict(self, unet: UNet2DConditionModel, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        """Predicted noise, shape of `x_t` (n, C, H, W), float32, whatever the model predicts; timesteps on the CPU."""
        output = self._call(unet, x_t, send(timesteps, x_t.device), given).float()
        if self.scheduler_config.get("prediction_type", "epsilon") == "epsilon":
            return output
        return v_to_noise(output, x_t, alpha_bar(self.alphas_cumprod, timesteps))

    def pipeline(self, unet: UNet2DConditionModel) -> DiffusionPipeline:
        """The whole pipeline around `unet`, without a safety checker."""
        return DiffusionPipeline.from_pretrained(self.folder, unet=unet, **self.pipeline_options)

    def _call(self, unet: UNet2DConditionModel, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        return unet(x_t, timesteps, encoder_hidden_states=given.tensors["hidden"]).sample

    @cached_property
    def _text(self) -> tuple[CLIPTokenizer, CLIPTextModel]:
        tokenizer = parts.load_tokenizer(self.folder, "tokenizer")
        return tokenizer, parts.load_text_encoder(CLIPTextModel, self.folder, "text_encoder")

    def kohya_name(self, module: str, unet: UNet2DConditionModel) -> str:
        """The name of a module of `unet` in LoRA files of kohya's layout."""
        return kohya.flat_name(module)

    def save_pipeline(self, unet: UNet2DConditionModel, out: Path) -> None:
        """Write a diffusers pipeline folder that `DiffusionPipeline.from_pretrained` opens, of any version."""
        saving.save_pipeline(self.folder, unet, out)
