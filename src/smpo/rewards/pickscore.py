"""PickScore, and every other CLIPModel that is scored as transformers documents it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from smpo.rewards.clip_cosine import ClipCosine, load_clip
from smpo.rewards.learnt import LearntScorer
from smpo.rewards.preprocessing import LongestSide, ShortestSide
from smpo.rewards.settings import ClipFolderSettings, PickScoreSettings
from smpo.rewards.tokenisation import CLIP_FILES, TransformersClipTokens
from smpo.rewards.weights import existing, local_folder, model_files


@dataclass(frozen=True, kw_only=True)
class ClipFolderScorer(ClipFolderSettings, LearntScorer):
    """Cosine of a CLIPModel in transformers' layout. Not an entry of `SCORERS` itself."""

    @property
    def units(self) -> str:
        """What a score of 1 means."""
        return "cosine"

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest possible score."""
        return -1.0, 1.0

    @cached_property
    def preprocessing(self) -> ShortestSide | LongestSide:
        """The image part, as the processor's preprocessor_config.json sets it."""
        return ShortestSide.load(self._processor_folder)

    @cached_property
    def _weight_files(self) -> list[Path]:
        return model_files(self.source, self.revision)

    @cached_property
    def _config_files(self) -> list[Path]:
        return existing(self._weight_files[0].parent, ("config.json",))

    @cached_property
    def _tokenizer_files(self) -> list[Path]:
        return existing(self._processor_folder, CLIP_FILES)

    @cached_property
    def _processor_folder(self) -> Path:
        revision = self.revision if self.processor is None else None
        return local_folder(self.processor or self.source, revision, ("*.json", "*.txt"))

    def _load(self, device: torch.device, dtype: torch.dtype) -> ClipCosine:
        model = load_clip(self._weight_files, dtype=dtype, device=device)
        text: Any = model.config.text_config  # transformers' type allows a dict and None, too
        tokens = TransformersClipTokens(self._processor_folder, positions=text.max_position_embeddings)
        return ClipCosine(model, tokens)


@dataclass(frozen=True, kw_only=True)
class PickScore(PickScoreSettings, ClipFolderScorer):
    """PickScore v1; its settings are explained in `PickScoreSettings`."""

    name: ClassVar[str] = "pickscore"
