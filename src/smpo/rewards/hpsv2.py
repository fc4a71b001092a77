"""HPSv2 and HPSv2.1: the cosine of a fine-tuned open_clip ViT-H/14."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from transformers import CLIPModel

from smpo.rewards.clip_cosine import ClipCosine
from smpo.rewards.learnt import LearntScorer
from smpo.rewards.open_clip import clip_config, to_transformers
from smpo.rewards.preprocessing import LongestSide
from smpo.rewards.settings import HPSV2_FILES, HpsV2Settings
from smpo.rewards.tokenisation import CLIP_FILES, OpenClipTokens
from smpo.rewards.weights import existing, load_model, local_file, local_folder, read_tensors

VISION_HEAD = 80  # width of an attention head of ViT-H/14's image tower


@dataclass(frozen=True, kw_only=True)
class HpsV2(HpsV2Settings, LearntScorer):
    """HPSv2 or HPSv2.1; its settings are explained in `HpsV2Settings`."""

    name: ClassVar[str] = "hpsv2"
    units: ClassVar[str] = "cosine"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    @property
    def preprocessing(self) -> LongestSide:
        """The image part."""
        return LongestSide(antialias=self.antialias)

    @cached_property
    def _weight_files(self) -> list[Path]:
        return [local_file(self.source, self.revision, HPSV2_FILES[self.version])]

    @cached_property
    def _tokenizer_files(self) -> list[Path]:
        return existing(local_folder(self.tokenizer, None, CLIP_FILES), CLIP_FILES)

    def _load(self, device: torch.device, dtype: torch.dtype) -> ClipCosine:
        tokens = OpenClipTokens(local_folder(self.tokenizer, None, CLIP_FILES))
        tensors = read_tensors(self._weight_files)
        config = clip_config(tensors, vision_head=VISION_HEAD, activation="gelu")
        tensors = to_transformers(tensors)
        model = load_model(lambda: CLIPModel(config), tensors, dtype=dtype,
                           origin=self._weight_files[0], device=device)
        return ClipCosine(model, tokens)
