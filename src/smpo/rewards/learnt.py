"""The base class of scorers with weights: device, precision, preprocessing of images, scoring."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from PIL import Image
from torch import Tensor

from smpo.core.precision import float32_products
from smpo.core.processes import local_device
from smpo.rewards.scorer import Preprocessing
from smpo.rewards.settings import LearntSettings
from smpo.rewards.weights import hashes

PLACES = {"device", "source", "revision", "processor", "clip", "tokenizer"}
"""Fields that name a place of a file or a device. They do not change a score; the contents of the files do."""
THREADS = 8  # pillow's resize releases the interpreter lock


class Model(Protocol):
    """Loaded weights on one device."""

    device: torch.device

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score of each stacked input (B, ...) on `device` for its prompt: (B,), float32, on `device`."""
        ...


@dataclass(frozen=True, kw_only=True)
class LearntScorer(LearntSettings, ABC):
    """A reward model of the hub or of local files. Not an entry of `SCORERS` itself."""

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True

    @property
    @abstractmethod
    def units(self) -> str:
        """What a score of 1 means."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest possible score; None where there is none."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """The image part; loads no weights."""

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Score of each image for its prompt, shape (B,), float32, on the CPU.

        Args:
            images: B images of any mode and size.
            prompts: B prompts; longer ones than the scorer reads are cut as its original does.

        Raises:
            ValueError: the numbers of images and prompts differ, or are 0.
            DataError: the model or its files cannot be loaded, or an image cannot be used.
        """
        check_counts(len(images), prompts)
        with ThreadPoolExecutor(THREADS) as pool:
            return self.score(torch.stack(list(pool.map(self.preprocessing, images))), prompts)

    @torch.no_grad()
    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score of each preprocessed image, stacked to (B, ...), for its prompt: (B,), float32, on the CPU.

        Raises:
            ValueError: the numbers of inputs and prompts differ, or are 0.
            DataError: the model or its files cannot be loaded.
        """
        check_counts(len(inputs), prompts)
        model = self._model
        with full_precision(model.device):
            return model.score(inputs.to(model.device, non_blocking=True), prompts).float().cpu()

    def identity(self) -> dict[str, Any]:
        """What decides a score: settings, SHA-256 of weights, configs and tokenizer, preprocessing, units; no places.

        Raises:
            DataError: the files cannot be found.
        """
        settings = {key: value for key, value in asdict(self).items() if key not in PLACES}
        return {"name": self.name, **settings, "weights": self._weight_hashes, "configs": hashes(self._config_files),
                "tokenizer": self._tokenizer_hashes, "preprocessing": self.preprocessing.describe(),
                "units": self.units}

    @cached_property
    def _weight_hashes(self) -> dict[str, str]:
        return hashes(self._weight_files)

    @cached_property
    def _tokenizer_hashes(self) -> dict[str, str]:
        return hashes(self._tokenizer_files)

    @property
    @abstractmethod
    def _weight_files(self) -> list[Path]:
        """Every file whose content decides the weights; the first is the source's."""

    @property
    def _config_files(self) -> list[Path]:
        """Every file that decides how the weights are used; none if the checkpoint suffices."""
        return []

    @property
    def _tokenizer_files(self) -> list[Path]:
        """Every file that decides the token ids; none where prompts are not read."""
        return []

    @cached_property
    def _model(self) -> Model:
        device = torch.device(local_device() if self.device == "auto" else self.device)
        return self._load(device, getattr(torch, self.dtype))

    @abstractmethod
    def _load(self, device: torch.device, dtype: torch.dtype) -> Model:
        """The model on its device."""


def check_counts(num_images: int, prompts: Sequence[str]) -> None:
    """Raise ValueError unless there are as many images as prompts, and at least one."""
    if num_images != len(prompts) or not num_images:
        raise ValueError(f"expected one prompt per image, got {num_images} images and {len(prompts)} prompts")


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keeps a caller's autocast, TF32 and bfloat16 products away from the scores, and gives them back afterwards."""
    with torch.autocast(device.type, enabled=False), float32_products(tf32=False):
        yield
