"""PickScore and CLIP score: the cosine of a CLIP model's image and text features."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from smpo.artefacts import hash_file
from smpo.errors import DataError
from smpo.models.sources import resolve_source
from smpo.rewards.learnt import LearntScorer
from smpo.rewards.preprocessing import ClipPreprocessing

PROMPTS_KEPT = 8192  # 33 MB of embeddings of width 1024
LAION_VIT_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


@dataclass(frozen=True, kw_only=True)
class ClipCosine(LearntScorer):
    """Cosine of the L2-normalised image and text features of a CLIPModel. Not an entry of `SCORERS` itself.

    The raw cosine, without logit_scale, is what the papers of the DPO family report (times 100). Prompts are
    encoded one at a time, so that a prompt's embedding never depends on its neighbours: a score is the same in any
    batch, and an interrupted scoring run continues bit for bit.

    Attributes:
        source: hub id, local folder or package:// of the model; safetensors only.
        processor: the same of tokenizer and preprocessor_config.json; None = `source`.
        dtype: of weights and activations; bfloat16 moves a cosine by about 3.5e-4.
    """

    processor: str | None = None

    units: ClassVar[str] = "cosine"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    @cached_property
    def preprocessing(self) -> ClipPreprocessing:
        """The image part, as the processor's preprocessor_config.json sets it."""
        return ClipPreprocessing.load(self._processor_folder)

    def identity(self) -> dict[str, Any]:
        """Name, source, revision, SHA-256 of the weights, dtype, tokenizer and preprocessing: what decides a score."""
        return {"name": self.name, "source": self.source, "processor": self.processor, "revision": self.revision,
                "weights": self._weight_hashes, "tokenizer": self._tokenizer_hashes, "dtype": self.dtype,
                "preprocessing": self.preprocessing.describe(), "units": self.units}

    @cached_property
    def _model_folder(self) -> Path:
        return _local_folder(self.source, self.revision, ("*.json", "model*.safetensors"))

    @cached_property
    def _processor_folder(self) -> Path:
        if self.processor is None:
            return _local_folder(self.source, self.revision, ("*.json", "*.txt", "model*.safetensors"))
        return _local_folder(self.processor, None, ("*.json", "*.txt"))

    @cached_property
    def _weight_hashes(self) -> dict[str, str]:
        files = sorted(self._model_folder.glob("model*.safetensors"))
        if not files:
            raise DataError(f"{self.source} has no model*.safetensors; convert its weights, or choose another revision")
        return {file.name: hash_file(file) for file in files}

    @cached_property
    def _tokenizer_hashes(self) -> dict[str, str]:
        names = ("vocab.json", "merges.txt", "tokenizer.json")
        files = [self._processor_folder / name for name in names]
        return {file.name: hash_file(file) for file in files if file.exists()}

    def _load(self, device: torch.device, dtype: torch.dtype) -> "LoadedClip":
        return LoadedClip(self._model_folder, self._processor_folder, dtype=dtype, device=device)


@dataclass(frozen=True, kw_only=True)
class PickScore(ClipCosine):
    """PickScore v1 (Kirstain et al. 2023) as Diffusion-DPO and SmPO use it: the cosine, without logit_scale."""

    source: str = "yuvalkirstain/PickScore_v1"
    processor: str | None = LAION_VIT_H
    name: ClassVar[str] = "pickscore"


@dataclass(frozen=True, kw_only=True)
class ClipScore(ClipCosine):
    """CLIP score: the cosine of a CLIP model, by default LAION's ViT-H/14, whose values near 0.38 the paper reports."""

    source: str = LAION_VIT_H
    name: ClassVar[str] = "clip"


class LoadedClip:
    """A CLIPModel with its tokenizer, in evaluation mode on one device."""

    def __init__(self, folder: Path, processor: Path, *, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        self.tokenizer = _load_tokenizer(processor)
        self.model = _load_model(folder, dtype).to(device).eval().requires_grad_(False)
        positions = self.model.config.text_config.max_position_embeddings
        self.max_length = min(self.tokenizer.model_max_length, positions)  # the former is unset in some checkpoints
        self._encode_prompt = lru_cache(maxsize=PROMPTS_KEPT)(self._encode_prompt)

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine of each image's pixel values (B, 3, H, W) with its prompt, shape (B,), float32."""
        text = torch.stack([self._encode_prompt(prompt) for prompt in prompts])
        features = _projected(self.model.get_image_features(pixel_values=inputs.to(self.model.dtype)))
        return (F.normalize(features.float(), dim=-1) * text).sum(dim=-1)

    def _encode_prompt(self, prompt: str) -> Tensor:
        """L2-normalised text features of one prompt, shape (D,), float32."""
        tokens = self.tokenizer([prompt], truncation=True, max_length=self.max_length, return_tensors="pt")
        tokens = tokens.to(self.device)
        features = self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return F.normalize(_projected(features).float(), dim=-1)[0]


def _projected(output: Any) -> Tensor:
    """The projected embedding, shape (B, D): transformers 4 returns the tensor itself, 5 an output object."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _local_folder(source: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """The folder that holds `source`, downloaded where it is a hub id."""
    resolved = resolve_source(source)
    if Path(resolved).is_dir():
        return Path(resolved)
    if resolved.count("/") != 1 or resolved.startswith(("/", ".", "~")):
        raise DataError(f"scorer source {source} does not exist; correct the path or give a hub id owner/name")
    try:
        return Path(snapshot_download(resolved, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError, RuntimeError) as error:  # network, unknown repository, offline without a cache
        reason = str(error).partition("\n")[0]
        raise DataError(f"scorer source {source} is neither a folder nor a model the hub delivers ({reason}); "
                        "correct it, or download the model and give its folder") from error


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of `folder`; without its files transformers 5 would build an empty one and raise nothing."""
    layouts = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    if not any(all((folder / name).is_file() for name in names) for names in layouts):
        raise DataError(f"{folder} holds no CLIP tokenizer (vocab.json, merges.txt); set processor to one that does")
    return CLIPTokenizer.from_pretrained(folder)


def _load_model(folder: Path, dtype: torch.dtype) -> CLIPModel:
    """The model with every weight from the checkpoint; transformers would fill missing ones at random."""
    try:
        model, info = CLIPModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{folder} holds no CLIPModel in safetensors ({reason}); correct the source") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} weights of a CLIPModel, the first is {missing[0]}; "
                        "it holds another architecture, so correct the source")
    return model
