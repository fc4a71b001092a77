"""PickScore and CLIP score: the cosine of a CLIP model's image and text features."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from smpo.artefacts import hash_file
from smpo.checks import check_known
from smpo.errors import DataError
from smpo.models.sources import resolve_source
from smpo.rewards.preprocessing import ClipPreprocessing

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROMPTS_KEPT = 8192  # 33 MB of embeddings of width 1024
LAION_VIT_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


@dataclass(frozen=True, kw_only=True)
class ClipCosine:
    """Cosine of the L2-normalised image and text features of a CLIPModel. Not an entry of `SCORERS` itself.

    The raw cosine, without logit_scale, is what the papers of the DPO family report (times 100). Prompts are
    encoded one at a time, so that a prompt's embedding never depends on its neighbours: a score is the same in any
    batch, and an interrupted scoring run continues bit for bit.

    Attributes:
        source: hub id, local folder or package:// of the model; safetensors only.
        processor: the same of tokenizer and preprocessor_config.json; None = `source`.
        revision: commit or branch of a hub model.
        dtype: of weights and activations; the cosine itself is always float32. bfloat16 moves a cosine by about 3.5e-4.
        device: "auto" = cuda where there is one.
    """

    source: str
    processor: str | None = None
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"

    name: ClassVar[str]
    units: ClassVar[str] = "cosine"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_known(self.dtype, DTYPES, what="scorer.dtype")

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Cosine of each image with its prompt, shape (B,), float32, on the CPU.

        Args:
            images: B images of any mode and size.
            prompts: B prompts; longer ones are cut at the tokenizer's limit, keeping the end token.

        Raises:
            ValueError: the numbers of images and prompts differ, or are 0.
            DataError: the model or its files cannot be loaded.
        """
        if len(images) != len(prompts) or not images:
            raise ValueError(f"expected one prompt per image, got {len(images)} images and {len(prompts)} prompts")
        return self._loaded.score(images, prompts)

    def identity(self) -> dict[str, Any]:
        """Name, source, revision, SHA-256 of the weights, dtype, tokenizer and preprocessing: what decides a score."""
        preprocessing = ClipPreprocessing.load(self._processor_folder).describe()
        return {"name": self.name, "source": self.source, "processor": self.processor, "revision": self.revision,
                "weights": self._weight_hashes, "tokenizer": self._tokenizer_hashes, "dtype": self.dtype,
                "preprocessing": preprocessing, "units": self.units}

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

    @cached_property
    def _loaded(self) -> "LoadedClip":
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(automatic if self.device == "auto" else self.device)
        return LoadedClip(self._model_folder, self._processor_folder, dtype=DTYPES[self.dtype], device=device)


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
    """A CLIPModel with its tokenizer and preprocessing, in evaluation mode on one device."""

    def __init__(self, folder: Path, processor: Path, *, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        self.preprocess = ClipPreprocessing.load(processor)
        self.tokenizer = _load_tokenizer(processor)
        self.model = _load_model(folder, dtype).to(device).eval().requires_grad_(False)
        positions = self.model.config.text_config.max_position_embeddings
        self.max_length = min(self.tokenizer.model_max_length, positions)  # the former is unset in some checkpoints
        self._encode_prompt = lru_cache(maxsize=PROMPTS_KEPT)(self._encode_prompt)

    @torch.no_grad()
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Cosine of each image with its prompt, shape (B,), float32, on the CPU."""
        with ExitStack() as precision:
            for context in _full_precision(self.device):
                precision.enter_context(context)
            text = torch.stack([self._encode_prompt(prompt) for prompt in prompts])
            pixel_values = self.preprocess(images).to(self.device, self.model.dtype)
            image = F.normalize(_projected(self.model.get_image_features(pixel_values=pixel_values)).float(), dim=-1)
            return (image * text).sum(dim=-1).cpu()

    def _encode_prompt(self, prompt: str) -> Tensor:
        """L2-normalised text features of one prompt, shape (D,), float32."""
        tokens = self.tokenizer([prompt], truncation=True, max_length=self.max_length, return_tensors="pt")
        tokens = tokens.to(self.device)
        features = self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return F.normalize(_projected(features).float(), dim=-1)[0]


def _full_precision(device: torch.device) -> tuple:
    """Contexts that keep a caller's autocast, and TF32 in the patch convolution, away from the scores."""
    autocast_off = torch.autocast(device.type, enabled=False)
    return (autocast_off, torch.backends.cudnn.flags(allow_tf32=False)) if device.type == "cuda" else (autocast_off,)


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
