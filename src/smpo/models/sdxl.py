"""Stable Diffusion XL: two text encoders, a pooled embedding and size conditioning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from smpo.core.records import Conditioning
from smpo.models import kohya, parts
from smpo.models.family import Texts
from smpo.models.sd import StableDiffusion


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(StableDiffusion):
    """The family of StableDiffusionXLPipeline."""

    pipeline_class: ClassVar[str] = "StableDiffusionXLPipeline"
    pipeline_options: ClassVar[dict[str, Any]] = {"add_watermarker": False}
    text_encoders: ClassVar[Mapping[str, type[nn.Module]]] = {
        "text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection
    }
    added: ClassVar[str | None] = "text_time"
    undoes_statistics: ClassVar[bool] = True
    kohya_version: ClassVar[str] = "sdxl_base_v1-0"

    @staticmethod
    def encode_with(texts: Texts, prompts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """{"hidden": penultimate states of both encoders (n, L, D1 + D2), "pooled": of the second (n, P)}."""
        states = []
        for tokenizer, encoder in texts:
            output = encoder.to(device)(parts.token_ids(tokenizer, prompts).to(device), output_hidden_states=True)
            states.append(output.hidden_states[-2])
        return {"hidden": torch.cat(states, dim=-1), "pooled": output.text_embeds}

    def condition(self, prompts: Mapping[str, Tensor], sizes: Tensor) -> Conditioning:
        """Conditioning of n images; `sizes` (n, 6) = original h, w, crop top, left, target h, w, in pixels."""
        return Conditioning({**prompts, "time_ids": sizes.float()})

    def kohya_name(self, module: str, denoiser: UNet2DConditionModel) -> str:
        """The name of a module of `denoiser` in LoRA files of kohya's layout."""
        return kohya.flat_name(kohya.original_module(module, denoiser.config))

    def _call(self, unet: UNet2DConditionModel, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        added = {"text_embeds": given.tensors["pooled"], "time_ids": given.tensors["time_ids"]}
        hidden = given.tensors["hidden"]
        return unet(x_t, timesteps, encoder_hidden_states=hidden, added_cond_kwargs=added).sample
