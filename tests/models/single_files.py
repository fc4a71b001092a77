"""Single files of the tiny families, and headers of true size without weights."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from smpo.models.export import Precision, export
from smpo.models.foreign import Header
from smpo.models.original import TEXT, entries
from smpo.models.published import published_folder
from smpo.models.single_file import _config, part_shapes
from smpo.models.tensor_files import StoredTensor

FAMILIES = ("sd", "sdxl")


def exported(pipeline: Path, folder: Path, *, precision: Precision = "float32") -> Path:
    """A pipeline as `folder`/tiny.safetensors, with its configs beside it."""
    export(pipeline, folder / "tiny.safetensors", precision=precision, title="tiny")
    return folder / "tiny.safetensors"


def changed(file: Path, folder: Path, change: Callable[[dict[str, Tensor]], object], **metadata: str) -> Path:
    """A copy of a single file, with its configs, after `change` has had its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(file)
    change(tensors)
    with safe_open(file, framework="pt") as opened:
        metadata = {**opened.metadata(), **metadata}
    save_file(tensors, folder / file.name, metadata=metadata)
    shutil.copytree(file.with_suffix(".config"), (folder / file.name).with_suffix(".config"))
    return folder / file.name


@functools.cache
def true_size(family: str) -> dict[str, StoredTensor]:
    """Names and shapes of a published model's single file; its tensors have no storage."""
    configs, found = published_folder(family), {}
    for part in ("unet", "vae", *TEXT[family]):
        shapes = part_shapes(configs, part)
        for entry in entries(family, part, shapes, _config(configs, part)):
            shape = entry.shape(shapes)
            found[entry.name] = StoredTensor(shape, "F16", lambda shape=shape: torch.empty(shape, device="meta"))
    return found


def header(family: str, **metadata: str) -> Header:
    """The header of a published model's single file."""
    return Header(true_size(family), metadata)
