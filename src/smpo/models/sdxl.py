"""Stable Diffusion XL: two text encoders, a pooled embedding and size conditioning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from smpo.models import kohya, parts
from smpo.models.sd import StableDiffusion
from smpo.records import Conditioning


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(StableDiffusion):
    """The family of StableDiffusionXLPipeline."""

    pipeline_options: ClassVar[dict[str, Any]] = {}
    kohya_version: ClassVar[str] = "sdxl_base_v1-0"

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """{"hidden": penultimate states of both encoders (n, L, D1 + D2), "pooled": of the second (n, P)}, float32."""
        states = []
        for tokenizer, encoder in self._texts:
            output = encoder.to(device)(parts.token_ids(tokenizer, prompts).to(device), output_hidden_states=True)
            states.append(output.hidden_states[-2])
        return {"hidden": torch.cat(states, dim=-1).cpu(), "pooled": output.text_embeds.cpu()}

    def condition(self, prompts: Mapping[str, Tensor], sizes: Tensor) -> Conditioning:
        """Conditioning of n images; `sizes` (n, 6) = original h, w, crop top, left, target h, w, in pixels."""
        return Conditioning({**prompts, "time_ids": sizes.float()})

    def kohya_name(self, module: str, unet: UNet2DConditionModel) -> str:
        """The name of a module of `unet` in LoRA files of kohya's layout."""
        return kohya.flat_name(kohya.original_module(module, unet.config))

    def _call(self, unet: UNet2DConditionModel, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        added = {"text_embeds": given.tensors["pooled"], "time_ids": given.tensors["time_ids"]}
        hidden = given.tensors["hidden"]
        return unet(x_t, timesteps, encoder_hidden_states=hidden, added_cond_kwargs=added).sample

    @cached_property
    def _texts(self) -> list[tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]]:
        kinds = {"": CLIPTextModel, "_2": CLIPTextModelWithProjection}
        return [
            (
                parts.load_tokenizer(self.folder, f"tokenizer{suffix}"),
                parts.load_text_encoder(kind, self.folder, f"text_encoder{suffix}"),
            )
            for suffix, kind in kinds.items()
        ]
