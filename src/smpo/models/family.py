"""Seam 4: model families. A family hides how a model is loaded, conditioned, asked for its output, and saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, ModelMixin
from torch import Tensor, nn
from transformers import CLIPTokenizer

from smpo.core.records import Conditioning
from smpo.maths.path import GaussianPath
from smpo.models.folders import Part

Texts = list[tuple[CLIPTokenizer, nn.Module]]
"""Tokenizer and text encoder, in the order in which a pipeline has them."""


class Predicting(Protocol):
    """What a training step asks of a family.

    Attributes:
        path: how images become noise, and what the denoiser predicts of them.
    """

    @property
    def path(self) -> GaussianPath: ...  # noqa: D102

    def predict(self, denoiser: nn.Module, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        """What the path trains the denoiser to predict, shape of `x_t` (n, C, H, W), float32; timesteps on the CPU."""
        ...


class Family(Predicting, Protocol):
    """The pipelines of one class of diffusers, from one source.

    What a network is called inside a pipeline, how many text encoders there are, what is added to the prompt: all of
    that stays behind these methods. Every load proves what it reads, and raises ConfigError in one line.

    Attributes:
        source: diffusers folder, hub id, `package://` data or single file.
        revision: hub revision; None is the newest.
        component: name of the denoiser in a pipeline and its folder: "unet" or "transformer".
        pipeline_class: name of the class of its pipelines.
        text_encoders: folder of each text encoder -> its class.
        added: what its denoiser is given beside prompt and timestep, as `addition_embed_type` has it.
        undoes_statistics: whether the pipeline undoes the VAE's latents_mean and latents_std when it decodes.
        kohya_version: the base model, in the words of kohya's trainer.
        folder: the local diffusers folder of the source, downloaded where it is a hub id.
    """

    component: ClassVar[str]
    pipeline_class: ClassVar[str]
    text_encoders: ClassVar[Mapping[str, type[nn.Module]]]
    added: ClassVar[str | None]
    undoes_statistics: ClassVar[bool]
    kohya_version: ClassVar[str]

    @property
    def source(self) -> str: ...  # noqa: D102

    @property
    def revision(self) -> str | None: ...  # noqa: D102

    @property
    def folder(self) -> Path: ...  # noqa: D102

    def __hash__(self) -> int: ...

    def reread(self) -> "Family":
        """The same family, which remembers nothing that it has read: files may have changed."""
        ...

    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """The networks' configs by name, complete; ConfigError where the folder is another family's, or has a fault."""
        ...

    def part(self, name: str) -> Part:
        """The part of the pipeline in the folder `name`."""
        ...

    def denoiser_part(self, source: str | None) -> Part:
        """Where the denoiser of `source` lies, proven to fit the other parts; None is the family's own source."""
        ...

    def load_denoiser(self, source: str | None = None, *, dtype: torch.dtype = torch.float32) -> ModelMixin:
        """The denoiser of `source` (a pipeline or a denoiser's folder), of the family's own source when None."""
        ...

    def load_vae(self, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        """The VAE, in eval mode."""
        ...

    def encode_with(self, texts: Texts, prompts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """What `encode_prompts` gives, by these tokenizers and text encoders, on `device`."""
        ...

    def encode_prompts(self, prompts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """What the denoiser needs of each prompt: name -> (n, ...), float32, on the CPU."""
        ...

    def condition(self, prompts: Mapping[str, Tensor], sizes: Tensor) -> Conditioning:
        """Conditioning of n images from their encoded prompts.

        Args:
            prompts: rows of what `encode_prompts` gave.
            sizes: original height and width, crop top and left, target height and width, in pixels, shape (n, 6).
        """
        ...

    def pipeline(
        self, denoiser: ModelMixin | None = None, *, dtype: torch.dtype = torch.float32
    ) -> DiffusionPipeline:
        """The whole pipeline around `denoiser` (its own where None), of proven parts, without a safety checker."""
        ...

    def assemble(self, networks: Mapping[str, nn.Module]) -> DiffusionPipeline:
        """The pipeline of these networks, by name, and of the folder's tokenizers, scheduler and settings."""
        ...

    def save_pipeline(self, denoiser: ModelMixin, out: Path) -> None:
        """Write a diffusers pipeline folder that `DiffusionPipeline.from_pretrained` opens."""
        ...

    def kohya_name(self, module: str, denoiser: ModelMixin) -> str:
        """The name of a module of `denoiser` in LoRA files of kohya's layout."""
        ...
