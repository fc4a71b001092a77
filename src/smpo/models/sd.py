"""Stable Diffusion 1.x (and 2.x): one text encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from smpo.core.records import Conditioning
from smpo.core.transfer import send
from smpo.maths.path import DiffusionPath
from smpo.models import kohya, parts, saving, schedules
from smpo.models.family import Texts
from smpo.models.fitting import check_unet, checked_configs, completed, index_of, scheduler_class
from smpo.models.folders import Part
from smpo.models.loading import load_network
from smpo.models.settings import FamilySettings
from smpo.models.sources import local_denoiser, local_pipeline


@dataclass(frozen=True, kw_only=True)
class StableDiffusion(FamilySettings):
    """The family of StableDiffusionPipeline."""

    component: ClassVar[str] = "unet"
    pipeline_class: ClassVar[str] = "StableDiffusionPipeline"
    pipeline_options: ClassVar[dict[str, Any]] = {
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False
    }
    text_encoders: ClassVar[Mapping[str, type[nn.Module]]] = {"text_encoder": CLIPTextModel}
    added: ClassVar[str | None] = None
    undoes_statistics: ClassVar[bool] = False
    kohya_version: ClassVar[str] = "sd_v1"

    @cached_property
    def folder(self) -> Path:
        """The local diffusers folder of the source, downloaded where it is a hub id."""
        return local_pipeline(self.source, revision=self.revision)

    def reread(self) -> "StableDiffusion":
        """The same family, which remembers nothing that it has read: files may have changed."""
        return replace(self)

    def part(self, name: str) -> Part:
        """The part of the pipeline in the folder `name`."""
        return Part(self.folder / name)

    @cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The networks' configs by name, complete; ConfigError where the folder is another family's, or has a fault."""
        return checked_configs(self.folder, self)

    @cached_property
    def schedule(self) -> dict[str, Any]:
        """What training reads of the scheduler's settings; ConfigError names what is not honoured."""
        return schedules.training_schedule(self._of_family("scheduler"), scheduler_class(self.folder))

    @cached_property
    def path(self) -> DiffusionPath:
        """How images become noise, and what the denoiser predicts of them."""
        return schedules.path_of(self.schedule)

    def load_denoiser(self, source: str | None = None, *, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
        """The UNet of `source` (a pipeline or a UNet folder), of the family's own source when None; see `loading`."""
        return load_network(UNet2DConditionModel, self.denoiser_part(source), dtype=dtype)

    def denoiser_part(self, source: str | None) -> Part:
        """Where the UNet of `source` lies; ConfigError unless it fits the other parts of the family's pipeline."""
        configs = self.configs
        if source is None:
            return self.part(self.component)
        part = Part(local_denoiser(source))
        check_unet(completed(UNet2DConditionModel, part), part, self, configs)
        return part

    def load_vae(self, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        """The VAE, in eval mode. Float32 unless you know better: SDXL's overflows in fp16."""
        return load_network(AutoencoderKL, self._of_family("vae"), dtype=dtype)

    def load_text_encoder(self, name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The text encoder in the folder `name`, in eval mode."""
        return load_network(self.text_encoders[name], self._of_family(name), dtype=dtype)

    def load_tokenizer(self, encoder: str) -> CLIPTokenizer:
        """The tokenizer of the text encoder in the folder `encoder`."""
        part = self.part(encoder.replace("text_encoder", "tokenizer"))
        return parts.load_tokenizer(part, self.configs[encoder], pooled=encoder == "text_encoder_2")

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """What the UNet needs of each prompt, see `encode_with`, float32, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self.encode_with(self._texts, prompts, device).items()}

    @staticmethod
    def encode_with(texts: Texts, prompts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """{"hidden": last hidden states (n, L, D)} of the prompts, by the family's tokenizers and text encoders."""
        ((tokenizer, encoder),) = texts
        return {"hidden": encoder.to(device)(parts.token_ids(tokenizer, prompts).to(device)).last_hidden_state}

    def condition(self, prompts: Mapping[str, Tensor], sizes: Tensor) -> Conditioning:
        """Conditioning of n images from their encoded prompts; `sizes` (n, 6) does not matter to this family."""
        return Conditioning(dict(prompts))

    def predict(self, denoiser: nn.Module, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        """What the path trains the denoiser to predict, shape of `x_t` (n, C, H, W), float32; timesteps on the CPU."""
        return self._call(denoiser, x_t, send(timesteps, x_t.device), given).float()

    def pipeline(
        self, denoiser: UNet2DConditionModel | None = None, *, dtype: torch.dtype = torch.float32
    ) -> DiffusionPipeline:
        """The whole pipeline around `denoiser` (its own where None), of proven parts, without a safety checker."""
        networks = {name: self.load_text_encoder(name, dtype) for name in self.text_encoders}
        denoiser = self.load_denoiser(dtype=dtype) if denoiser is None else denoiser
        return self.assemble({self.component: denoiser, "vae": self.load_vae(dtype), **networks})

    def assemble(self, networks: Mapping[str, nn.Module]) -> DiffusionPipeline:
        """The pipeline of these networks, by name, and of the folder's tokenizers, scheduler and settings."""
        index = index_of(self.folder)
        tokenizers = {
            name.replace("text_encoder", "tokenizer"): self.load_tokenizer(name) for name in self.text_encoders
        }
        scheduler = parts.load_scheduler(self.part("scheduler"), scheduler_class(self.folder))
        kept = {name: index[name] for name in ("force_zeros_for_empty_prompt",) if name in index and self.added}
        kind = getattr(diffusers, self.pipeline_class)  # not imported above: it takes a second with all it needs
        return kind(**networks, **tokenizers, scheduler=scheduler, **self.pipeline_options, **kept)

    def _of_family(self, name: str) -> Part:
        """The part `name`, after the check that the whole folder is this family's."""
        assert self.configs
        return self.part(name)

    def _call(self, unet: UNet2DConditionModel, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        return unet(x_t, timesteps, encoder_hidden_states=given.tensors["hidden"]).sample

    @cached_property
    def _texts(self) -> Texts:
        return [(self.load_tokenizer(name), self.load_text_encoder(name)) for name in self.text_encoders]

    def kohya_name(self, module: str, denoiser: UNet2DConditionModel) -> str:
        """The name of a module of `denoiser` in LoRA files of kohya's layout."""
        return kohya.flat_name(module)

    def save_pipeline(self, denoiser: UNet2DConditionModel, out: Path) -> None:
        """Write a diffusers pipeline folder that `DiffusionPipeline.from_pretrained` opens, of any version."""
        saving.save_pipeline(self.folder, denoiser, out)
