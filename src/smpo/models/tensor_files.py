"""Weights on disk, one tensor in memory at a time: reading a part's folder, writing .safetensors piece by piece."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smpo.core.artefacts import sync_folder
from smpo.core.errors import ConfigError
from smpo.models.folders import Part
from smpo.models.weight_files import DIFFUSERS, TRANSFORMERS, WeightFile, weight_files

STEMS = (*DIFFUSERS, *TRANSFORMERS)
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
CODES = {dtype: code for code, dtype in DTYPES.items()}
HASH = "modelspec.hash_sha256"
LENGTH_BYTES = 8  # of the header's length, little endian: https://github.com/huggingface/safetensors#format


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that still lies on disk.

    Attributes:
        shape: its shape.
        dtype: as the file's format names it: "F32", "F16", "F8_E4M3".
        read: loads it to the CPU.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]


def tensors_of_file(path: Path) -> dict[str, StoredTensor]:
    """All tensors of a .safetensors file.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        file = safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 -- no Mapping
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as .safetensors ({error}); download or write it again") from error
    return {
        name: StoredTensor(tuple(part.get_shape()), part.get_dtype(), functools.partial(file.get_tensor, name))
        for name, part in slices.items()
    }


def tensors_of_folder(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a network's folder: of the files that `weight_files` chooses, the pickled ones held in memory."""
    part = Part(folder)
    found: dict[str, StoredTensor] = {}
    for path in weight_files(part, STEMS):
        if path.suffix == ".safetensors":
            found |= tensors_of_file(path)
        else:
            found |= {name: _held(tensor) for name, tensor in WeightFile(part, path).tensors()}
    return found


def _held(tensor: Tensor) -> StoredTensor:
    return StoredTensor(tuple(tensor.shape), CODES.get(tensor.dtype, str(tensor.dtype)), lambda: tensor)


def write_safetensors(path: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file, one tensor at a time; after a crash at any moment it is whole or not there.

    Where `metadata` has the key HASH, its value becomes the SHA-256 of all tensors' bytes, as the model spec wants it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with open(aside, "wb") as file:
            _stream(file, tensors, metadata)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def _stream(file: BinaryIO, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
    metadata = {**metadata, **({HASH: "0x" + "0" * 64} if HASH in metadata else {})}
    order, digest = sorted(tensors), hashlib.sha256()
    file.write(_header(order, tensors, metadata))
    for name in order:
        content = _bytes_of(name, tensors[name])
        digest.update(content)
        file.write(content)
    if HASH in metadata:  # of the same length as the zeros before, so nothing moves
        file.seek(0)
        file.write(_header(order, tensors, {**metadata, HASH: f"0x{digest.hexdigest()}"}))


def _header(order: Sequence[str], tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> bytes:
    described: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        tensor, start = tensors[name], end
        end += torch.Size(tensor.shape).numel() * DTYPES[tensor.dtype].itemsize
        described[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # so that the tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _bytes_of(name: str, stored: StoredTensor) -> memoryview:
    tensor = stored.read()
    if tuple(tensor.shape) != stored.shape or tensor.dtype != DTYPES[stored.dtype]:
        raise AssertionError(f"{name}: announced {stored.shape} {stored.dtype}, got {tensor.shape} {tensor.dtype}")
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def some(names: Iterable[str], *, most: int = 3) -> str:
    """The first of `names` and how many more there are: "a, b, c and 5 more"."""
    names = sorted(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
