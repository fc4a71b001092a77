"""CLIP score: the cosine of a CLIP model's features, the ways that papers compute it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from smpo.rewards.clip_cosine import ClipCosine, load_clip
from smpo.rewards.pickscore import ClipFolderScorer
from smpo.rewards.preprocessing import LongestSide, ShortestSide
from smpo.rewards.settings import OWN, ClipSettings
from smpo.rewards.tokenisation import OPEN_CLIP_MARKS, OPENAI_MARKS, OpenClipTokens


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published way to compute a CLIP score.

    Attributes:
        preprocessing: its image part.
        marks: of its tokenizer.
        prefix: put before every prompt.
        weight: None = the cosine itself, else weight * max(cosine, 0).
    """

    preprocessing: ShortestSide | LongestSide
    marks: tuple[str, str] = OPENAI_MARKS
    prefix: str = ""
    weight: float | None = None


PRESETS: Mapping[str, Preset] = MappingProxyType({
    "vit-h-14-laion2b": Preset(  # Diffusion-DPO's, whose values near 0.38 the paper reports
        preprocessing=LongestSide(), marks=OPEN_CLIP_MARKS),
    "vit-l-14-openai": Preset(
        preprocessing=ShortestSide(library="torchvision")),
    "vit-b-32-openai": Preset(  # CLIPScore (Hessel et al. 2021)
        preprocessing=ShortestSide(library="torchvision"),
        prefix="A photo depicts ", weight=2.5),
})


@dataclass(frozen=True, kw_only=True)
class ClipScore(ClipSettings, ClipFolderScorer):
    """CLIP score; its settings are explained in `ClipSettings`."""

    name: ClassVar[str] = "clip"

    @property
    def units(self) -> str:
        """What a score of 1 means."""
        return "cosine" if self._weight is None else f"{self._weight} max(cosine, 0)"

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest possible score."""
        return (-1.0, 1.0) if self._weight is None else (0.0, self._weight)

    @cached_property
    def preprocessing(self) -> ShortestSide | LongestSide:
        """The image part: the preset's, or the processor's own."""
        return self._published.preprocessing if self._published else ShortestSide.load(self._processor_folder)

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score of each preprocessed image, stacked to (B, 3, H, W), for its prompt: (B,), float32, on the CPU."""
        prefix = self._published.prefix if self._published else ""
        cosines = super().score(inputs, [prefix + prompt for prompt in prompts])
        return cosines if self._weight is None else self._weight * cosines.clamp(min=0)

    @property
    def _published(self) -> Preset | None:
        return PRESETS.get(self.preset or OWN)

    @property
    def _weight(self) -> float | None:
        return self._published.weight if self._published else None

    def _load(self, device: torch.device, dtype: torch.dtype) -> ClipCosine:
        if self._published is None:
            return super()._load(device, dtype)
        tokens = OpenClipTokens(self._processor_folder, marks=self._published.marks)
        return ClipCosine(load_clip(self._weight_files, dtype=dtype, device=device), tokens)
