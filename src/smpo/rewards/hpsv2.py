"""HPSv2 and HPSv2.1: the cosine of a fine-tuned open_clip ViT-H/14."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch
from transformers import CLIPModel

from smpo.core.checks import check_known
from smpo.rewards.clip_cosine import ClipCosine
from smpo.rewards.learnt import LearntScorer
from smpo.rewards.open_clip import clip_config, to_transformers
from smpo.rewards.pickscore import LAION_VIT_H
from smpo.rewards.preprocessing import LongestSide
from smpo.rewards.tokenisation import CLIP_FILES, OpenClipTokens
from smpo.rewards.weights import existing, load_model, local_file, local_folder, read_tensors

FILES: Mapping[str, str] = MappingProxyType({"v2.1": "HPS_v2.1_compressed.pt", "v2.0": "HPS_v2_compressed.pt"})
VISION_HEAD = 80  # width of an attention head of ViT-H/14's image tower


@dataclass(frozen=True, kw_only=True)
class HpsV2(LearntScorer):
    """Human Preference Score v2 (Wu et al. 2023): the cosine; scores of v2.0 and v2.1 cannot be compared.

    Attributes:
        source: hub id, folder or file of the published checkpoint.
        version: "v2.1" or "v2.0": which file of the source, and what the scores are called.
        antialias: resize as torchvision 0.17 and newer do by default; HPSv2 was trained without.
        tokenizer: hub id or folder of a CLIP vocabulary.
    """

    source: str = "xswu/HPSv2"
    version: str = "v2.1"
    antialias: bool = False
    tokenizer: str = LAION_VIT_H

    name: ClassVar[str] = "hpsv2"
    units: ClassVar[str] = "cosine"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known(self.version, FILES, what="hpsv2 version")

    @property
    def preprocessing(self) -> LongestSide:
        """The image part."""
        return LongestSide(antialias=self.antialias)

    @cached_property
    def _weight_files(self) -> list[Path]:
        return [local_file(self.source, self.revision, FILES[self.version])]

    @cached_property
    def _tokenizer_files(self) -> list[Path]:
        return existing(local_folder(self.tokenizer, None, CLIP_FILES), CLIP_FILES)

    def _load(self, device: torch.device, dtype: torch.dtype) -> ClipCosine:
        tokens = OpenClipTokens(local_folder(self.tokenizer, None, CLIP_FILES))
        tensors = read_tensors(self._weight_files)
        config = clip_config(tensors, vision_head=VISION_HEAD, activation="gelu")
        tensors = to_transformers(tensors)
        model = load_model(lambda: CLIPModel(config), tensors, dtype=dtype, origin=self._weight_files[0])
        return ClipCosine(model.to(device), tokens)
