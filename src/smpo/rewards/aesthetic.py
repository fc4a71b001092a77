"""The LAION aesthetic predictor: an affine head on the normalised image features of OpenAI's CLIP ViT-L/14."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from smpo.rewards.affine_head import AffineHead
from smpo.rewards.clip_cosine import read_config
from smpo.rewards.learnt import LearntScorer
from smpo.rewards.preprocessing import ShortestSide
from smpo.rewards.settings import AestheticSettings
from smpo.rewards.weights import existing, load_model, local_file, model_files, read_tensors, shapes_of

HEAD = "sac+logos+ava1-l14-linearMSE.pth"
TEXT_SIDE = ("text_model.", "text_projection.", "logit_scale")  # of the whole CLIP checkpoint; not needed


@dataclass(frozen=True, kw_only=True)
class Aesthetic(AestheticSettings, LearntScorer):
    """The LAION aesthetic predictor v2; its settings are explained in `AestheticSettings`."""

    name: ClassVar[str] = "aesthetic"
    units: ClassVar[str] = "rating, about 1 to 10"
    bounds: ClassVar[None] = None

    @property
    def preprocessing(self) -> ShortestSide:
        """The image part."""
        return ShortestSide(library="torchvision")

    @cached_property
    def _head_file(self) -> Path:
        return local_file(self.source, self.revision, HEAD)

    @cached_property
    def _weight_files(self) -> list[Path]:
        return [self._head_file, *model_files(self.clip, None)]

    @cached_property
    def _config_files(self) -> list[Path]:
        return existing(self._weight_files[1].parent, ("config.json",))

    def _load(self, device: torch.device, dtype: torch.dtype) -> "LoadedAesthetic":
        head_file, *files = self._weight_files
        weights = read_tensors([head_file])
        shapes = shapes_of(weights)
        head = load_model(lambda: AffineHead(shapes), weights, dtype=torch.float32, origin=head_file, device=device)
        config = read_config(files[0].parent)
        tensors = {name: tensor for name, tensor in read_tensors(files).items()
                   if not name.startswith(TEXT_SIDE) and not name.endswith(".position_ids")}
        vision_config: Any = config.vision_config  # transformers' type allows a dict and None, too
        vision_config.projection_dim = config.projection_dim
        vision = load_model(lambda: CLIPVisionModelWithProjection(vision_config), tensors, dtype=dtype,
                            origin=files[0].parent, device=device)
        return LoadedAesthetic(vision, head)


class LoadedAesthetic:
    """Image tower and head on one device."""

    def __init__(self, vision: CLIPVisionModelWithProjection, head: AffineHead) -> None:
        self.device = vision.device
        self._vision, self._head = vision, head

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Rating of each image's pixel values (B, 3, 224, 224), shape (B,), float32; `prompts` are not read."""
        features = self._vision(pixel_values=inputs.to(self._vision.dtype)).image_embeds.float()
        return self._head(F.normalize(features, dim=-1))
