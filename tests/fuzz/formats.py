"""How weights are stored: variants, shards, pickles, and single files of every kind."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.fuzz.case import Accepted, Case, Refused
from tests.fuzz.model_damage import HEADER, LFS, SAME, WEIGHTS, bytes_of, model_case, tensors_of, without
from tests.fuzz.world import World


def fixed() -> list[Case]:
    """All of them."""
    return [*_formats(), *_sources()]


def _formats() -> Iterator[Case]:
    """How the hub's models are stored."""
    yield model_case(
        "fp16 variant", lambda folder: [_renamed(folder, part, "fp16") for part in WEIGHTS], SAME, train=True
    )
    yield model_case(
        "fp16 variant of the UNet alone", lambda folder: _renamed(folder, "unet", "fp16"), SAME, train=True
    )
    yield model_case(".bin alone", lambda folder: [_pickled(folder, part) for part in WEIGHTS], SAME, train=True)
    yield model_case(".bin of the UNet alone", lambda folder: _pickled(folder, "unet"), SAME, train=True)
    yield model_case("sharded UNet", _sharded, SAME, train=True)
    yield model_case(
        "sharded UNet, a shard gone",
        lambda folder: (_sharded(folder), without("unet/diffusion_pytorch_model-00002-of-00002.safetensors")(folder)),
        Refused(("unet",)),
        url="https://github.com/tdrussell/diffusion-pipe/issues/215",
    )
    yield model_case(
        "sharded UNet, index broken",
        lambda folder: (
            _sharded(folder),
            bytes_of("unet/diffusion_pytorch_model.safetensors.index.json", b"{")(folder),
        ),
        Refused(("unet",)),
    )
    yield model_case(
        "sharded UNet, index wrong",
        lambda folder: (
            _sharded(folder),
            bytes_of("unet/diffusion_pytorch_model.safetensors.index.json", b'{"weight_map": {}}')(folder),
        ),
        Refused(("unet",)),
    )
    for part in WEIGHTS:
        yield model_case(
            f".bin of {part} that runs code", lambda folder, part=part: _wicked(folder, part), Refused((part,))
        )
        yield model_case(
            f".bin of {part} that is cut",
            lambda folder, part=part: (
                _pickled(folder, part),
                bytes_of(f"{part}/{_bin(part)}", lambda data: data[:200])(folder),
            ),
            Refused((part,)),
        )
    yield model_case(
        "weights for Flax alone",
        lambda folder: (
            without("unet/" + WEIGHTS["unet"])(folder),
            (folder / "unet/diffusion_flax_model.msgpack").write_bytes(b"x"),
        ),
        Refused(("unet",)),
    )
    yield model_case(
        "EMA and plain weights",
        lambda folder: shutil.copy(
            folder / "unet" / WEIGHTS["unet"], folder / "unet/diffusion_pytorch_model.non_ema.safetensors"
        ),
        SAME,
        train=True,
    )
    yield model_case(
        "float16 weights",
        lambda folder: [tensors_of(part, lambda t: {k: v.half() for k, v in t.items()})(folder) for part in WEIGHTS],
        Accepted(),
        train=True,
    )
    yield model_case(
        "float8 weights",
        tensors_of("unet", lambda t: {k: v.to(torch.float8_e4m3fn) for k, v in t.items()}),
        Refused(("unet",)),
    )


def _bin(part: str) -> str:
    return WEIGHTS[part].replace("model.safetensors", "model.bin") if part != "text_encoder" else "pytorch_model.bin"


def _renamed(folder: Path, part: str, variant: str) -> None:
    file = folder / part / WEIGHTS[part]
    file.rename(file.with_name(file.name.replace(".safetensors", f".{variant}.safetensors")))


def _pickled(folder: Path, part: str) -> None:
    file = folder / part / WEIGHTS[part]
    torch.save(load_file(file), file.with_name(_bin(part)))
    file.unlink()


class _Trap:
    def __reduce__(self) -> tuple:
        return (open, ("../hacked", "w"))


def _wicked(folder: Path, part: str) -> None:
    (folder / part / WEIGHTS[part]).unlink()
    (folder / part / _bin(part)).write_bytes(pickle.dumps(_Trap()))


def _sharded(folder: Path) -> None:
    file = folder / "unet" / WEIGHTS["unet"]
    tensors = load_file(file)
    file.unlink()
    half, places = len(tensors) // 2, {}
    for number, names in enumerate((sorted(tensors)[:half], sorted(tensors)[half:]), start=1):
        name = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({one: tensors[one] for one in names}, file.with_name(name), {"format": "pt"})
        places.update(dict.fromkeys(names, name))
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": places}
    file.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _sources() -> Iterator[Case]:
    """`model.source` is one file."""
    files: dict[str, Callable[[Path, Path], object]] = {
        "empty.safetensors": lambda cwd, sd: (cwd / "empty.safetensors").write_bytes(b""),
        "pointer.safetensors": lambda cwd, sd: (cwd / "pointer.safetensors").write_bytes(LFS),
        "page.safetensors": lambda cwd, sd: (cwd / "page.safetensors").write_bytes(b"<!DOCTYPE html>"),
        "unet.safetensors": lambda cwd, sd: shutil.copy(sd / "unet" / WEIGHTS["unet"], cwd / "unet.safetensors"),
        "vae.safetensors": lambda cwd, sd: shutil.copy(sd / "vae" / WEIGHTS["vae"], cwd / "vae.safetensors"),
        "text.safetensors": lambda cwd, sd: shutil.copy(
            sd / "text_encoder" / WEIGHTS["text_encoder"], cwd / "text.safetensors"
        ),
        "lora.safetensors": lambda cwd, sd: save_file(
            {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 8)},
            cwd / "lora.safetensors",
        ),
        "flux.safetensors": lambda cwd, sd: save_file(
            {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 8)}, cwd / "flux.safetensors"
        ),
        "part.safetensors": lambda cwd, sd: save_file(
            {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}, cwd / "part.safetensors"
        ),
        "inpaint.safetensors": lambda cwd, sd: save_file(
            {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 9, 3, 3)}, cwd / "inpaint.safetensors"
        ),
        "vpred.safetensors": lambda cwd, sd: save_file(
            {"v_pred": torch.zeros(0), "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)},
            cwd / "vpred.safetensors",
        ),
        "fp8.safetensors": lambda cwd, sd: save_file(
            {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3).to(torch.float8_e4m3fn)},
            cwd / "fp8.safetensors",
        ),
        "none.safetensors": lambda cwd, sd: save_file({}, cwd / "none.safetensors"),
        "old.ckpt": lambda cwd, sd: torch.save({"state_dict": {}}, cwd / "old.ckpt"),
        "model.gguf": lambda cwd, sd: (cwd / "model.gguf").write_bytes(b"GGUF" + bytes(60)),
        "a.zip": lambda cwd, sd: (cwd / "a.zip").write_bytes(b"PK\x03\x04"),
        "folder.safetensors": lambda cwd, sd: (cwd / "folder.safetensors").mkdir(),
        "nowhere.safetensors": lambda cwd, sd: None,
    }
    for name, write in files.items():

        def make(
            cwd: Path, world: World, name: str = name, write: Callable[[Path, Path], object] = write
        ) -> list[list[str]]:
            world.copy_of_finished(cwd)
            write(cwd, world.sd)
            return [["cache", "recipe.yaml", "paths.cache=new-cache", f"model.source={name}"]]

        yield Case(f"model of one file {name}", make, Refused((name,)), HEADER if "pointer" in name else "", limit_s=30)
