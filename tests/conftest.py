"""Tiny random pipelines, saved to disk in diffusers' layout and loaded through the real loaders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny_pipelines import save_random_sd, save_random_sdxl

torch.set_num_threads(1)  # two threads on tiny tensors are slower, and xdist runs two processes


@pytest.fixture(scope="session", autouse=True)
def remembered_digests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The digests that tests remember lie in a folder of their own, not in the user's cache."""
    before = os.environ.get("SMPO_CACHE")
    os.environ["SMPO_CACHE"] = str(tmp_path_factory.mktemp("digests"))
    yield
    if before is None:
        del os.environ["SMPO_CACHE"]
    else:
        os.environ["SMPO_CACHE"] = before


@pytest.fixture(scope="session")
def random_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline folder with random weights; 32 px images, 8x8 latents."""
    return save_random_sd(tmp_path_factory.mktemp("models") / "random-sd")


@pytest.fixture(scope="session")
def random_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionXLPipeline folder with random weights; 32 px images, 8x8 latents."""
    return save_random_sdxl(tmp_path_factory.mktemp("models") / "random-sdxl")
