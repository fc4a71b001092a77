"""Files of scorers, from the hub or local, and models of which every weight comes from them.

Checkpoints are safetensors, or pickles read with `weights_only`: nothing but tensors is ever unpickled.
"""

import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from smpo.core.digests import file_digests
from smpo.core.errors import DataError
from smpo.models.package_data import resolve_source

SAFETENSORS, PICKLES = "model*.safetensors", "pytorch_model*.bin"
Tensors = dict[str, Tensor]
M = TypeVar("M", bound=nn.Module)


def local_folder(source: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder that holds `source`, downloaded where it is a hub id (only files that match `patterns`).

    Raises:
        DataError: it is neither a folder nor a model that the hub delivers.
    """
    resolved = resolve_source(source)
    if Path(resolved).is_dir():
        return Path(resolved)
    if resolved.count("/") != 1 or resolved.startswith(("/", ".", "~")):
        raise DataError(f"scorer source {source} does not exist; correct the path or give a hub id owner/name")
    try:
        return Path(snapshot_download(resolved, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError, RuntimeError) as error:  # network, unknown repository, offline without a cache
        raise DataError(f"scorer source {source} is neither a folder nor a model the hub delivers "
                        f"({_first_line(error)}); correct it, or download the model and give its folder") from error


def local_file(source: str, revision: str | None, name: str) -> Path:
    """The file `source` itself, or the file `name` of a local folder or hub model.

    Raises:
        DataError: there is no such file.
    """
    if Path(resolve_source(source)).is_file():
        return Path(resolve_source(source))
    file = local_folder(source, revision, (name,)) / name
    if not file.is_file():
        raise DataError(f"scorer source {source} has no {name}; correct the source or its revision")
    return file


def model_files(source: str, revision: str | None) -> list[Path]:
    """The weight files of a transformers model: safetensors, or pickles where it has none (older hub models).

    Raises:
        DataError: it has neither.
    """
    for pattern in (SAFETENSORS, PICKLES):
        files = sorted(local_folder(source, revision, ("*.json", pattern)).glob(pattern))
        if files:
            return files
    raise DataError(f"scorer source {source} has neither {SAFETENSORS} nor {PICKLES}; correct it or its revision")


def existing(folder: Path, names: Iterable[str]) -> list[Path]:
    """Those files of a folder that exist."""
    return [folder / name for name in names if (folder / name).is_file()]


def hashes(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file by its name; remembered, see `smpo.core.digests`."""
    return {file.name: digest for file, digest in file_digests(files).items()}


def read_tensors(files: Iterable[Path]) -> Tensors:
    """All tensors of some checkpoint files, on the CPU, by name.

    Raises:
        DataError: a file is damaged or holds anything but tensors.
    """
    tensors: Tensors = {}
    for file in files:
        try:
            content = load_file(file) if file.suffix == ".safetensors" else _unpickle(file)
        except (SafetensorError, UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
            raise DataError(f"{file} holds no readable tensors ({_first_line(error)}); download it again") from error
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise DataError(f"{file} holds more than named tensors; use the published checkpoint of the scorer")
        tensors |= content
    return tensors


def shapes_of(tensors: Tensors) -> Tensors:
    """The same names and shapes without memory, from which a module is built before `load_model` fills it."""
    return {name: tensor.to("meta") for name, tensor in tensors.items()}


def load_model(
    build: Callable[[], M], tensors: Tensors, *, dtype: torch.dtype, origin: Path, device: torch.device
) -> M:
    """The module that `build` makes, with every weight from `tensors` (which is emptied), on `device`, for evaluation.

    It is built without memory and each tensor is converted and released in turn, so the peak is one copy of the
    weights. Position ids, which newer transformers do not save, are made afresh.

    Raises:
        DataError: a weight is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        model = build()
    expected = model.state_dict()
    _check_names(expected, tensors, origin)
    for name in expected:
        expected[name] = tensors.pop(name).to(dtype, copy=True)  # where a tensor lies in a file moves last bits
    model.load_state_dict(expected, assign=True)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                assert name == "position_ids", name
                setattr(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return model.eval().requires_grad_(False).to(device)


def _check_names(expected: Tensors, tensors: Tensors, origin: Path) -> None:
    problems = {
        "lacks": sorted(expected.keys() - tensors.keys()),
        "has unknown": sorted(tensors.keys() - expected.keys()),
        "has differently shaped": sorted(
            name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape),
    }
    for problem, names in problems.items():
        if names:
            raise DataError(f"{origin} {problem} weights ({len(names)}, the first is {names[0]}); "
                            "it holds another architecture, so correct the source")


def _unpickle(file: Path) -> Any:
    """Content of a pickle, tensors by name: training checkpoints keep them under `state_dict`, behind `module.`."""
    content = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        return content
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
