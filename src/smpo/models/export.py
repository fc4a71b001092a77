"""A pipeline folder as one .safetensors in the original layout, for ComfyUI, A1111 and diffusers' `from_single_file`.

The metadata follow Stability's model spec 1.0.0 (https://github.com/Stability-AI/ModelSpec, commit 02f6279), but for
author and date: the same folder gives the same file, to the byte.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from smpo import __version__
from smpo.core.errors import ConfigError
from smpo.models.original import TEXT, Entry, current_name, entries
from smpo.models.package_data import resolve_source
from smpo.models.published import published_folder, write_configs
from smpo.models.saving import INDEX
from smpo.models.single_file import part_shapes
from smpo.models.tensor_files import CODES, HASH, StoredTensor, some, tensors_of_folder, write_safetensors

Precision = Literal["float16", "float32"]
PRECISIONS = ("float16", "float32")
ARCHITECTURES = {"sd": "stable-diffusion-v1", "sdxl": "stable-diffusion-xl-v1-base"}
IMPLEMENTATIONS = {"sd": "https://github.com/CompVis/stable-diffusion", "sdxl": "sgm"}
PIPELINES = {"StableDiffusionPipeline": "sd", "StableDiffusionXLPipeline": "sdxl"}
SD2_WIDTH = 1024  # of its text states
HALF = torch.finfo(torch.float16)


def export(folder: Path, out: Path, *, precision: Precision, title: str) -> Path | None:
    """Write the pipeline in `folder` to the file `out`, one tensor in memory at a time.

    A model of other shapes than SD1.5's or SDXL's also gets a folder of its configs beside the file, which diffusers'
    `from_single_file(config=...)` and this toolkit need to read it.

    Args:
        folder: a diffusers pipeline.
        out: ends in .safetensors and does not exist yet.
        precision: of all weights. float32 loses nothing; float16 rounds.
        title: shown by programs that list models.

    Returns:
        The folder of configs, or None where the file needs none.

    Raises:
        ConfigError: the pipeline has no single-file layout, is damaged, or does not fit into float16.
    """
    _check_target(out, precision)
    family = family_of_folder(folder)
    shapes = {part: part_shapes(folder, part) for part in ("unet", "vae", *TEXT[family])}
    tensors: dict[str, StoredTensor] = {}
    for part, found in shapes.items():
        stored = _stored(folder, part, found)
        for entry in entries(family, part, found, _config(folder, part)):
            tensors[entry.name] = _entry_tensor(entry, stored, found, precision)
    write_safetensors(out, tensors, _metadata(folder, family, title))
    return None if _is_published(family, shapes) else _write_config_folder(folder, out)


def family_of_folder(folder: Path) -> str:
    """ "sd" or "sdxl"; ConfigError for a pipeline that cannot be written as one file."""
    if not (folder / INDEX).is_file():
        raise ConfigError(f"{folder} holds no {INDEX}; give the folder of a diffusers pipeline")
    name = json.loads((folder / INDEX).read_text()).get("_class_name")
    if name not in PIPELINES:
        raise ConfigError(f"{folder} is a {name}; only {' and '.join(PIPELINES)} can be written as one file")
    predicted = _config(folder, "scheduler", "scheduler_config.json").get("prediction_type", "epsilon")
    if predicted != "epsilon":
        raise ConfigError(f"{folder} predicts {predicted}, which a single file cannot say; use the folder")
    family = PIPELINES[name]
    if family == "sd" and _config(folder, "unet")["cross_attention_dim"] == SD2_WIDTH:
        raise ConfigError(f"{folder} is an SD2.x model, whose single-file layout is not supported; use the folder")
    return family


def pipeline_of(source: str) -> Path:
    """The pipeline folder that `source` is or, as a run's folder, holds: itself, model/ or train/model/ below it."""
    folder = Path(resolve_source(source))
    for place in (folder, folder / "model", folder / "train" / "model"):
        if (place / INDEX).is_file():
            return place
    raise ConfigError(f"{folder} holds no {INDEX}; give the folder of a finished run or of a diffusers pipeline")


def _check_target(out: Path, precision: str) -> None:
    if precision not in PRECISIONS:
        raise ConfigError(f"the precision must be {' or '.join(PRECISIONS)}, got {precision}; correct it")
    if out.suffix != ".safetensors":
        raise ConfigError(f"the single file must end in .safetensors, got {out}; correct the name")
    if out.exists():
        raise ConfigError(f"{out} exists already; delete it or choose another name")


def _stored(folder: Path, part: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
    """The part's tensors under the names of `entries`, proven to be those that its config asks for."""
    found = {
        current_name(part, name): tensor for name, tensor in tensors_of_folder(folder / part).items()
        if not name.endswith("position_ids")
    }
    if found.keys() != shapes.keys():
        raise ConfigError(f"{folder / part}: {some(found.keys() ^ shapes.keys())} do not agree with its config.json; "
                          "complete the model's folder")
    wrong = [name for name, tensor in found.items() if tensor.shape != shapes[name]]
    if wrong:
        raise ConfigError(f"{folder / part}: {some(wrong)} have other shapes than config.json says; correct the folder")
    return found


def _entry_tensor(
    entry: Entry, stored: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], precision: Precision
) -> StoredTensor:
    dtype: torch.dtype = getattr(torch, precision)

    def read() -> Tensor:
        return entry.merged([_cast(name, stored[name].read(), dtype) for name in entry.sources])

    return StoredTensor(entry.shape(shapes), CODES[dtype], read)


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise ConfigError(f"{name} holds NaN or infinity; the model is broken and is not written")
    if dtype == torch.float16 and tensor.abs().max() > HALF.max:
        raise ConfigError(
            f"{name} holds {tensor.abs().max().item():.6g}, and float16 ends at {HALF.max:g}; write float32"
        )
    return tensor.to(dtype)


def _metadata(folder: Path, family: str, title: str) -> dict[str, str]:
    unet, vae = _config(folder, "unet"), _config(folder, "vae")
    side = unet.get("sample_size", 0) * 2 ** (len(vae["block_out_channels"]) - 1)
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURES[family],
        "modelspec.implementation": IMPLEMENTATIONS[family],
        "modelspec.title": title,
        "modelspec.description": f"Written by smpo {__version__}.",
        "modelspec.prediction_type": "epsilon",
        HASH: "",
        **({"modelspec.resolution": f"{side}x{side}"} if side else {}),
    }


def _is_published(family: str, shapes: Mapping[str, dict[str, tuple[int, ...]]]) -> bool:
    return all(part_shapes(published_folder(family), part) == found for part, found in shapes.items())


def _write_config_folder(folder: Path, out: Path) -> Path:
    configs = out.with_suffix(".config")
    shutil.rmtree(configs, ignore_errors=True)
    write_configs(folder, configs)
    return configs


def _config(folder: Path, part: str, name: str = "config.json") -> dict[str, Any]:
    return json.loads((folder / part / name).read_text())
