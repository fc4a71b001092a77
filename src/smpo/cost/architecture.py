"""The shapes of a recipe's networks, from configurations alone: no weights, no hub, no memory (the meta device)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from smpo.core.errors import ConfigError
from smpo.models.published import published_folder
from smpo.models.sources import cached_pipeline

META = torch.device("meta")


@dataclass(frozen=True)
class Architecture:
    """A pipeline folder, of which only the configurations are read.

    Attributes:
        folder: in diffusers' layout.
        is_own: whether these are the recipe's own networks; otherwise they are those of the public SD1.5 or SDXL, whose
            configurations come with this package.
    """

    folder: Path
    is_own: bool

    def config(self, part: str) -> dict[str, Any]:
        """The configuration of a subfolder.

        Raises:
            ConfigError: there is none.
        """
        path = self.folder / part / "config.json"
        if not path.exists():
            raise ConfigError(f"model: {path} does not exist; give a diffusers pipeline folder or a hub id")
        return json.loads(path.read_text())

    def unet(self) -> Any:  # to mypy the classes of diffusers are no modules
        """The UNet2DConditionModel, float32, without storage."""
        with META:
            return UNet2DConditionModel.from_config(self.config("unet"))

    def vae(self) -> Any:  # diffusers leaves `encode` untyped
        """The AutoencoderKL, float32, without storage."""
        with META:
            return AutoencoderKL.from_config(self.config("vae"))

    def text_encoders(self) -> list[CLIPTextModelWithProjection]:
        """The text encoders, float32, without storage; one that has no projection gets one, which costs nothing."""
        parts = sorted(path.name for path in self.folder.glob("text_encoder*"))
        with META:
            return [CLIPTextModelWithProjection(CLIPTextConfig(**self.config(part))) for part in parts]

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image of `resolution` px."""
        vae = self.config("vae")
        side = resolution // 2 ** (len(vae["block_out_channels"]) - 1)
        return vae["latent_channels"], side, side

    def prompt_shapes(self) -> dict[str, tuple[int, ...]]:
        """What the cache stores of a prompt: name -> shape."""
        unet, text = self.config("unet"), self.config("text_encoder")
        shapes: dict[str, tuple[int, ...]] = {"hidden": (text["max_position_embeddings"], unet["cross_attention_dim"])}
        if unet.get("addition_embed_type") == "text_time":
            shapes["pooled"] = (unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"],)
        return shapes


def architecture_of(model: Mapping[str, Any]) -> Architecture:
    """The architecture of a recipe's `model` section.

    A folder, `package://` data and a hub model that was downloaded before are read themselves. What is still on the hub
    is not fetched, and a single file is not converted: they are taken to have the shapes of their family's published
    model, and `is_own` says so.

    Raises:
        ConfigError: the source is a path, and no folder is there.
    """
    folder = cached_pipeline(model["source"], revision=model.get("revision"))
    if folder is not None:
        return Architecture(folder, is_own=True)
    return Architecture(published_folder(model["name"]), is_own=False)


def unet_inputs(architecture: Architecture, images: int, resolution: int) -> dict[str, Any]:
    """Keyword arguments of a UNet call on `images` images, without storage."""
    shapes = architecture.prompt_shapes()
    given: dict[str, Any] = {
        "sample": _empty(images, *architecture.latent_shape(resolution)),
        "timestep": torch.zeros(images, dtype=torch.long, device=META),
        "encoder_hidden_states": _empty(images, *shapes["hidden"]),
    }
    if "pooled" in shapes:
        given["added_cond_kwargs"] = {"text_embeds": _empty(images, *shapes["pooled"]), "time_ids": _empty(images, 6)}
    return given


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, device=META)
