"""The settings of every scorer, with their defaults and checks. Imports no torch, so that recipes load at once.

The class of a scorer inherits from its settings class and adds what computes scores, but no field.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from smpo.core.checks import check_device, check_known

DTYPES = ("float32", "bfloat16", "float16")
LAION_VIT_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
HPSV2_FILES: Mapping[str, str] = MappingProxyType({
    "v2.1": "HPS_v2.1_compressed.pt", "v2.0": "HPS_v2_compressed.pt"
})
"""Version of HPSv2 -> the file of its published checkpoint."""
CLIP_SOURCES: Mapping[str, str] = MappingProxyType({
    "vit-h-14-laion2b": LAION_VIT_H, "vit-l-14-openai": "openai/clip-vit-large-patch14",
    "vit-b-32-openai": "openai/clip-vit-base-patch32",
})
"""Preset of the CLIP score -> its weights. The first one is the default."""
OWN = "own"


@dataclass(frozen=True, kw_only=True)
class LearntSettings:
    """Settings that every scorer with weights has.

    Attributes:
        source: hub id, local path or package:// of the weights.
        revision: commit or branch of a hub model.
        dtype: of weights and activations; normalisation, dot products and heads are always float32.
        device: "auto" = the process's own GPU, or the CPU where there is none.
    """

    source: str
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_known(self.dtype, DTYPES, what="scorer.dtype")
        check_device(self.device, what="scorer.device")


@dataclass(frozen=True, kw_only=True)
class ClipFolderSettings(LearntSettings):
    """Settings of a scorer that is a CLIPModel in transformers' layout.

    Attributes:
        source: hub id, local folder or package:// of the model.
        processor: the same of tokenizer and preprocessor_config.json; None = `source`.
    """

    processor: str | None = None


@dataclass(frozen=True, kw_only=True)
class PickScoreSettings(ClipFolderSettings):
    """PickScore v1 (Kirstain et al. 2023) as Diffusion-DPO and SmPO use it: the cosine, without logit_scale."""

    source: str = "yuvalkirstain/PickScore_v1"
    processor: str | None = LAION_VIT_H


@dataclass(frozen=True, kw_only=True)
class ClipSettings(ClipFolderSettings):
    """CLIP score of a preset, by default the paper's, or of any CLIPModel with its own preprocessing and tokenizer.

    Attributes:
        preset: a name of `CLIP_SOURCES`, or "own": preprocessing and tokenizer of `processor`, as transformers does
            it. None = "own" where a source is given, else "vit-h-14-laion2b".
        source: of the weights; None = the preset's.
    """

    source: str | None = None  # type: ignore[assignment]  # never None after __post_init__
    preset: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        preset = self.preset or (OWN if self.source else next(iter(CLIP_SOURCES)))
        check_known(preset, [*CLIP_SOURCES, OWN], what="clip preset")
        if preset == OWN and not self.source:
            raise ValueError("preset own needs a source; give one, or name another preset")
        object.__setattr__(self, "preset", preset)
        object.__setattr__(self, "source", self.source or CLIP_SOURCES[preset])


@dataclass(frozen=True, kw_only=True)
class HpsV2Settings(LearntSettings):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known(self.version, HPSV2_FILES, what="hpsv2 version")


@dataclass(frozen=True, kw_only=True)
class ImageRewardSettings(LearntSettings):
    """ImageReward v1.0 (Xu et al. 2023): a rating normalised to mean 0 and deviation 1 over its training data.

    Attributes:
        source: hub id or folder of ImageReward.pt and med_config.json.
        tokenizer: hub id or folder of bert-base-uncased's vocabulary.
    """

    source: str = "THUDM/ImageReward"
    tokenizer: str = "google-bert/bert-base-uncased"


@dataclass(frozen=True, kw_only=True)
class AestheticSettings(LearntSettings):
    """The LAION aesthetic predictor v2 (sac+logos+ava1, linear, MSE); it does not read the prompt.

    Attributes:
        source: file of the head, or hub id or folder with it. The default mirrors the author's repository.
        clip: hub id or folder of OpenAI's CLIP ViT-L/14.
    """

    source: str = "camenduru/improved-aesthetic-predictor"
    clip: str = "openai/clip-vit-large-patch14"
