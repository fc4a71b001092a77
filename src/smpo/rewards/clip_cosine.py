"""The cosine of a CLIPModel's image and text features: the model part of PickScore, HPSv2 and CLIP score."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from smpo.core.errors import DataError
from smpo.rewards.weights import load_model, read_tensors

PROMPTS_KEPT = 65536  # 268 MB of features of width 1024; Pick-a-Pic has 58,960 prompts


class ClipCosine:
    """A CLIPModel that scores images by their cosine with prompts, float32 whatever the towers' dtype.

    Prompts are encoded one at a time, so that a prompt's features never depend on its neighbours: an interrupted
    scoring run continues bit for bit.

    Args:
        model: on its device, for evaluation.
        tokens: token ids (L,) of a prompt.
    """

    def __init__(self, model: CLIPModel, tokens: Callable[[str], Tensor]) -> None:
        self.model = model
        self.device = model.device
        self._tokens = tokens
        self._features_of = lru_cache(maxsize=PROMPTS_KEPT)(self._encode_prompt)

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine of each image's pixel values (B, 3, H, W) with its prompt, shape (B,), float32.

        Raises:
            DataError: the pixel values have another size than the model's images.
        """
        vision: Any = self.model.config.vision_config  # transformers' type allows a dict and None, too
        size_px = vision.image_size
        if inputs.shape[-2:] != (size_px, size_px):
            raise DataError(f"the preprocessing gives {inputs.shape[-2]} x {inputs.shape[-1]} px, the model reads "
                            f"{size_px} px; set processor or preset to the model's own")
        text = torch.stack([self._features_of(prompt) for prompt in prompts])
        features = projected(self.model.get_image_features(pixel_values=inputs.to(self.model.dtype)))
        return (F.normalize(features.float(), dim=-1) * text).sum(dim=-1)

    def _encode_prompt(self, prompt: str) -> Tensor:
        """L2-normalised text features of one prompt, shape (D,), float32."""
        ids = self._tokens(prompt)[None].to(self.device)
        features = projected(self.model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids)))
        return F.normalize(features.float(), dim=-1)[0]


def load_clip(files: Sequence[Path], *, dtype: torch.dtype, device: torch.device) -> CLIPModel:
    """The CLIPModel of a transformers folder, given its weight files, on `device`.

    Raises:
        DataError: the folder holds no CLIPModel, or not just its weights.
    """
    folder = files[0].parent
    config = read_config(folder)
    tensors = {name: value for name, value in read_tensors(files).items() if not name.endswith(".position_ids")}
    return load_model(lambda: CLIPModel(config), tensors, dtype=dtype, origin=folder, device=device)


def read_config(folder: Path) -> CLIPConfig:
    """The configuration of a transformers folder.

    Raises:
        DataError: there is none, or it is of another architecture.
    """
    try:
        config = CLIPConfig.get_config_dict(folder)[0]
    except OSError as error:
        raise DataError(f"{folder} has no readable config.json; download it beside the weights") from error
    if config.get("model_type") != "clip":
        raise DataError(f"{folder} holds a model of type {config.get('model_type')}, expected clip; correct the source")
    return CLIPConfig.from_dict(config)


def projected(output: Any) -> Tensor:
    """The projected embedding, shape (B, D): transformers 4 returns the tensor itself, 5 an output object."""
    return output if isinstance(output, Tensor) else output.pooler_output
