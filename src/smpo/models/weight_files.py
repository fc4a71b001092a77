"""The weight files of a network: which are read, what they hold, and their tensors one by one.

Safetensors, whole or sharded, plain or of the variant fp16, and pickles, which are read with `weights_only`: nothing
but tensors is ever unpickled.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from smpo.models.folders import Part, unreadable

KINDS = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
"""Kinds of weight files, the preferred first: a network is read from one kind, the first that its folder has."""
DIFFUSERS, TRANSFORMERS = ("diffusion_pytorch_model",), ("model", "pytorch_model")
"""First part of the names of the weight files that each library writes, the preferred first."""
FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
SAFETENSORS_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Header:
    """What a file says of a tensor before it is read; `dtype` is None unless it is a floating type that we read."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    stored_as: str


class WeightFile:
    """The named tensors of one file. Safetensors are read when asked for; a pickle is mapped, or read, at once."""

    def __init__(self, part: Part, path: Path) -> None:
        self.path, self._part = path, part
        reason = unreadable(path)
        if reason:
            raise part.error(f"{path.name} {reason}")
        try:
            self.headers = self._safe_headers() if path.suffix == ".safetensors" else self._unpickled()
        except Exception as error:  # parsers of untrusted bytes: they have no common error
            raise part.error(f"{path.name} is damaged or no such file: {error}") from error

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and content of each tensor, CPU, as stored."""
        if self.path.suffix != ".safetensors":
            yield from self._content.items()
            return
        try:
            with safe_open(self.path, framework="pt") as file:
                for name in self.headers:
                    yield name, file.get_tensor(name)
        except Exception as error:  # as above; the file may have changed since
            raise self._part.error(f"{self.path.name} cannot be read: {error}") from error

    def _safe_headers(self) -> dict[str, Header]:
        with safe_open(self.path, framework="pt") as file:
            names = list(file.keys())
            slices = {name: file.get_slice(name) for name in names}
            return {
                name: Header(tuple(found.get_shape()), SAFETENSORS_TYPES.get(found.get_dtype()), found.get_dtype())
                for name, found in slices.items()
            }

    def _unpickled(self) -> dict[str, Header]:
        content = _unpickle(self.path)
        if not isinstance(content, Mapping):
            raise TypeError(f"it holds a {type(content).__name__}, and should hold named tensors")
        other = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
        if other:
            raise TypeError(f"its entry {other[0]!r} is no tensor")
        self._content = dict(content)
        return {
            name: Header(tuple(tensor.shape), tensor.dtype if tensor.dtype in FLOATS else None, str(tensor.dtype))
            for name, tensor in content.items()
        }


def weight_files(part: Part, stems: tuple[str, ...]) -> list[Path]:
    """The weight files that are read of a network: a whole file, or the pieces that an index lists.

    Args:
        part: the network's folder.
        stems: first part of the names: ("diffusion_pytorch_model",), or ("model", "pytorch_model").

    Raises:
        ConfigError: there are none, or an index is not one.
    """
    for kind in KINDS:
        for stem in stems:
            whole = part.folder / f"{stem}{kind}"
            if whole.exists() or whole.is_symlink():
                return [whole]
            for index in index_names(stem, kind):
                if (part.folder / index).exists():
                    return _pieces(part, index)
    raise part.error(f"it has no weights: {', '.join(stem + kind for kind in KINDS[:3:2] for stem in stems)}")


def index_names(stem: str, kind: str) -> tuple[str, ...]:
    """Names of the index of a sharded network; the variant stands before or behind "index"."""
    if not kind.startswith(".fp16"):
        return (f"{stem}{kind}.index.json",)
    suffix = kind.removeprefix(".fp16")
    return f"{stem}{suffix}.index.fp16.json", f"{stem}{suffix}.fp16.index.json"


def weight_patterns(stem: str, kind: str) -> tuple[str, ...]:
    """Glob patterns of the names of weight files: of a whole one, and of the pieces of a sharded network."""
    if not kind.startswith(".fp16"):
        return f"{stem}{kind}", f"{stem}-?????-of-?????{kind}"
    suffix = kind.removeprefix(".fp16")
    return f"{stem}{kind}", f"{stem}.fp16-?????-of-?????{suffix}", f"{stem}-?????-of-?????{kind}"


def _pieces(part: Part, index: str) -> list[Path]:
    """The files of a sharded network, after its index; each must lie beside it."""
    places = part.json(index).get("weight_map")
    if not (isinstance(places, dict) and places and all(isinstance(name, str) for name in places.values())):
        raise part.error(f"{index} has no weight_map of tensors to files")
    names = sorted(set(places.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise part.error(f"{index} names {outside[0]!r}, which is no file beside it")
    return [part.folder / name for name in names]


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # files of torch < 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)
