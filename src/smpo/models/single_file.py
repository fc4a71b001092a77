"""Single-file checkpoints of SD1.x and SDXL as base models: each becomes, once, a diffusers folder in a cache.

A file holds tensors alone. The rest comes from this package, as those of the published SD1.5 and SDXL base models, and
holds for a file whose every tensor has their names and shapes. A model of other shapes needs a folder of configs beside
it: `x.config/` beside `x.safetensors`. Nothing is asked of the network.
"""

import functools
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from smpo.core.artefacts import fingerprint, sync_folder
from smpo.core.digests import cache_folder, file_digest, hash_file
from smpo.core.errors import ConfigError
from smpo.core.locks import exclusive
from smpo.models.foreign import Header, check_is_safetensors, family_of
from smpo.models.original import TEXT, Entry, current_name, entries
from smpo.models.published import published_folder, write_configs
from smpo.models.saving import INDEX, declare_float32
from smpo.models.tensor_files import StoredTensor, some, tensors_of_file, write_safetensors

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
LAYOUT = 1  # of what is written; another number makes every file be converted again
IGNORED = (  # what checkpoints hold besides the model: averages, losses, hypernetworks, buffers that are computed anew
    "model_ema.", "loss.", "first_stage_model.loss.", "first_stage_model.model_ema.", "embedding_manager.",
    "denoiser.sigmas", "log_one_minus_alphas_cumprod", "sqrt_", "posterior_", "alphas_cumprod_prev", "logvar",
    "lvlb_weights", "global_step", "scale_factor", "conditioner.embedders.1.model.logit_scale",
    "conditioner.embedders.1.model.attn_mask",
)
TOLERANCE = 2e-3  # of alphas_cumprod, relative: float16 has 11 bits


def converted(path: Path) -> Path:
    """The diffusers folder with the content of the single file `path`, in the cache; made at the first call.

    Raises:
        ConfigError: the file is no whole SD1.x or SDXL base model that predicts noise, or it is damaged.
    """
    check_is_safetensors(path)
    configs = config_folder(path)
    identity = {"file": file_digest(path), "layout": LAYOUT, "configs": configs and _texts(configs)}
    folder = cache_folder() / "models" / fingerprint(identity)
    with exclusive(folder):
        if not folder.is_dir():
            _convert(path, configs, folder)
    return folder


def config_folder(path: Path) -> Path | None:
    """The folder of configs beside a single file, where there is one: `x.config` beside `x.safetensors`."""
    folder = path.with_suffix(".config")
    return folder if (folder / INDEX).is_file() else None


def read_header(path: Path) -> Header:
    """Names, shapes and metadata of a .safetensors file."""
    tensors = tensors_of_file(path)
    with safe_open(path, framework="pt") as file:
        return Header(tensors, file.metadata() or {})


def part_shapes(configs: Path, part: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a part, from its config alone."""
    config = json.loads((configs / part / "config.json").read_text())
    with torch.device("meta"):
        if part == "unet":
            network: Any = UNet2DConditionModel.from_config(config)
        elif part == "vae":
            network = AutoencoderKL.from_config(config)
        else:
            kind = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
            network = kind(CLIPTextConfig(**config))
    return {
        current_name(part, name): tuple(tensor.shape) for name, tensor in network.state_dict().items()
        if not name.endswith("position_ids")
    }


@dataclass(frozen=True)
class Reading:
    """A single file understood.

    Attributes:
        configs: folder of the configs that it fits.
        stored: its tensors that count, by the names of `table`.
        shapes: part -> tensor of the part -> shape.
        table: part -> where the file holds its tensors.
    """

    configs: Path
    stored: dict[str, StoredTensor]
    shapes: dict[str, dict[str, tuple[int, ...]]]
    table: dict[str, list[Entry]]


def understood(header: Header, configs: Path | None) -> Reading:
    """What a file holds, proven name by name and shape by shape.

    Raises:
        ConfigError: it is something else; the message goes on after "FILE is ".
    """
    family = family_of(header)
    source = configs or published_folder(family)
    shapes = {part: part_shapes(source, part) for part in ("unet", "vae", *TEXT[family])}
    table = {part: entries(family, part, found, _config(source, part)) for part, found in shapes.items()}
    stored = _in_one_form(header.tensors)
    _check_names(stored, [entry.name for part in table.values() for entry in part])
    for part, found in table.items():
        _check_shapes(stored, found, shapes[part])
    _check_schedule(stored, _config(source, "scheduler"))
    return Reading(source, stored, shapes, table)


def _convert(path: Path, configs: Path | None, folder: Path) -> None:
    aside = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _write(understood(read_header(path), configs), aside)
    except ConfigError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise ConfigError(f"model: {path} is {error}") from error
    os.rename(aside, folder)
    sync_folder(folder.parent)


def _write(reading: Reading, out: Path) -> None:
    write_configs(reading.configs, out)
    for part, found in reading.table.items():
        is_text = part.startswith("text_encoder")
        stem = "model" if is_text else "diffusion_pytorch_model"
        tensors = _part_tensors(found, reading.stored, reading.shapes[part])
        write_safetensors(out / part / f"{stem}.safetensors", tensors, {"format": "pt"})
        if is_text:
            declare_float32(out / part / "config.json")


def _part_tensors(
    found: Iterable[Entry], stored: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, StoredTensor]:
    """A part's tensors, each taken out of the file when it is written."""

    def read(entry: Entry, source: str) -> Tensor:
        tensor = stored[entry.name].read()
        if not torch.isfinite(tensor).all():
            raise ConfigError(f"broken: {entry.name} holds NaN or infinity; download it again, or another")
        return entry.taken(tensor, source, shapes)

    return {
        source: StoredTensor(shapes[source], stored[entry.name].dtype, functools.partial(read, entry, source))
        for entry in found for source in entry.sources
    }


def _in_one_form(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The file's tensors without ignored ones; a first text encoder without `text_model.` in its names gets it."""
    found = {}
    for name, tensor in tensors.items():
        if name.startswith(IGNORED) or name.endswith("position_ids"):
            continue
        for prefix in (TEXT["sd"]["text_encoder"], TEXT["sdxl"]["text_encoder"]):
            if name.startswith(prefix):
                name = prefix + current_name("text_encoder", name.removeprefix(prefix))
        found[name] = tensor
    return found


def _check_names(stored: Mapping[str, StoredTensor], expected: Iterable[str]) -> None:
    missing, unknown = set(expected) - set(stored), set(stored) - set(expected) - {"alphas_cumprod", "betas"}
    if missing or unknown:
        which = [f"{what} {len(names)} tensors ({some(names)})" for what, names in
                 (("lacks", missing), ("has besides", unknown)) if names]
        raise ConfigError(
            f"not what its configs say: it {' and '.join(which)}; give a complete file, or, for another architecture "
            "than SD1.5's or SDXL's, put its configs into a folder FILE.config beside FILE.safetensors"
        )


def _check_shapes(
    stored: Mapping[str, StoredTensor], found: Iterable[Entry], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """A convolution of one pixel may also lie there as a matrix, as some programs write the VAE's attention."""
    wrong = [
        f"{entry.name} {list(stored[entry.name].shape)} instead of {list(entry.shape(shapes))}" for entry in found
        if stored[entry.name].shape not in (
            {entry.shape(shapes), entry.shape(shapes)[:2]} if entry.form == "convolution" else {entry.shape(shapes)}
        )
    ]
    if wrong:
        raise ConfigError(
            f"of another architecture than its configs say ({some(wrong)}); put its configs into a folder FILE.config "
            "beside FILE.safetensors"
        )


def _check_schedule(stored: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> None:
    """The noise levels that many files carry must be those that the configs give; rescaled ones are the only sign."""
    if "alphas_cumprod" not in stored:
        return
    keys = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    expected = DDIMScheduler(**{key: config[key] for key in keys if key in config}).alphas_cumprod
    found = stored["alphas_cumprod"].read().float()
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE / 10):
        raise ConfigError(
            f"a model of another noise schedule (alphas_cumprod ends at {found.flatten()[-1].item():.4g}, the plain "
            f"one at {expected[-1].item():.4g}), such as zero terminal SNR, which is not supported yet; give another"
        )


def _config(configs: Path, part: str) -> dict[str, Any]:
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    return json.loads((configs / part / name).read_text())


def _texts(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".txt"))
    return {str(path.relative_to(folder)): hash_file(path) for path in files}
