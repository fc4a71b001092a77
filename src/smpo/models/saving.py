"""Writing a pipeline folder that old and new diffusers and transformers open.

What is not trained is not written anew: the base's own files are copied. transformers' and diffusers' own
`save_pretrained` would write files that only they themselves read: since version 5 no vocab.json and merges.txt, since
5.6 a CLIPTextModel without `text_model.` in its names (which older ones then fill with random numbers), and the local
path of the base.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from tokenizers import Tokenizer

from smpo.core.errors import ConfigError
from smpo.models.folders import Part
from smpo.models.tensor_files import STEMS, StoredTensor, tensors_of_folder, write_safetensors
from smpo.models.weight_files import weight_files

INDEX, CONFIG = "model_index.json", "config.json"
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
VOCABULARY = ("vocab.json", "merges.txt")
TOKENIZER_FILES = (*VOCABULARY, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                   "added_tokens.json")
LOCAL = ("_name_or_path", "name_or_path", "tokenizer_file", "special_tokens_map_file")  # where it once lay
FLATTENED = ("embeddings.", "encoder.", "final_layer_norm.")
WHOLE = "40GB"  # SDXL's UNet in float32 has 10.3 GB; one file is read by more programs than pieces


def save_pipeline(base: Path, unet: UNet2DConditionModel, out: Path) -> None:
    """Write to `out` the pipeline of `base` with `unet` in the place of its own.

    Raises:
        ConfigError: a part that the base names is not there.
    """
    index = json.loads((base / INDEX).read_text())
    out.mkdir(parents=True, exist_ok=True)
    for part in parts_of(index):
        copy_part(base / part, out / part)
    unet.save_pretrained(out / "unet", max_shard_size=WHOLE)
    copy_json(out / "unet" / CONFIG, out / "unet" / CONFIG)
    write_index(index, out)


def make_portable(folder: Path) -> None:
    """Rewrite, in place, what in a saved pipeline only the newest libraries or this machine would understand."""
    index = json.loads((folder / INDEX).read_text())
    for part in [*parts_of(index), "unet"]:
        aside = folder / f".tmp-{part}"
        copy_part(folder / part, aside)
        shutil.rmtree(folder / part)
        aside.rename(folder / part)
    write_index(index, folder)


def parts_of(index: Mapping[str, Any]) -> list[str]:
    """The parts, besides the UNet, that the pipeline of a model_index.json needs to draw."""
    return [
        name for name, about in index.items()
        if isinstance(about, list) and about[-1] is not None and name not in (*LEFT_OUT, "unet")
    ]


def copy_part(source: Path, target: Path) -> None:
    """Copy the files of one part of a pipeline, links resolved: its own alone, no README, licence or other formats."""
    if not source.is_dir():
        raise ConfigError(f"model: {source} does not exist, but {INDEX} names it; complete the base model's folder")
    target.mkdir(parents=True, exist_ok=True)
    if (source / "scheduler_config.json").is_file():
        copy_json(source / "scheduler_config.json", target / "scheduler_config.json")
    elif (source / CONFIG).is_file():
        copy_json(source / CONFIG, target / CONFIG)
        _copy_weights(source, target)
        if _is_text(source):
            declare_float32(target / CONFIG)
    else:
        copy_tokenizer(source, target)


def old_name(name: str) -> str:
    """The name that every version of transformers reads for a tensor of a CLIP text encoder."""
    return f"text_model.{name}" if name.startswith(FLATTENED) else name


def declare_float32(config: Path) -> None:
    """Make transformers load a model in float32, whatever its weights are stored in.

    Since version 5 it takes what the config says or the weights are (SDXL's says float16), and diffusers' UNet, which
    is float32 without a word, cannot read half precision states.
    """
    content = json.loads(config.read_text(encoding="utf-8"))
    if content.get("dtype", content.get("torch_dtype")) != "float32":
        content.pop("torch_dtype", None)
        _write_json(config, content | {"dtype": "float32"})


def _is_text(folder: Path) -> bool:
    return "text_encoder" in folder.name


def _copy_weights(source: Path, target: Path) -> None:
    """The files themselves where every program finds and reads them; else one .safetensors of the same tensors."""
    tensors = tensors_of_folder(source)
    files = weight_files(Part(source), STEMS)
    names = {name: old_name(name) if _is_text(source) else name for name in tensors}
    plain = all(path.suffix == ".safetensors" and ".fp16" not in path.name for path in files)
    if plain and all(name == new for name, new in names.items()):
        for path in [*files, *source.glob("*.safetensors.index.json")]:
            if ".fp16." not in path.name:
                shutil.copyfile(path, target / path.name)
        return
    stem = "model" if _is_text(source) else "diffusion_pytorch_model"
    renamed: dict[str, StoredTensor] = {names[name]: tensor for name, tensor in tensors.items()}
    write_safetensors(target / f"{stem}.safetensors", renamed, {"format": "pt"})


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer's files, and write those of the older layout where they lack: vocab.json and merges.txt."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            copy = copy_json if name == "tokenizer_config.json" else shutil.copyfile
            copy(source / name, target / name)
    if all((target / name).is_file() for name in VOCABULARY):
        return
    if not (target / "tokenizer.json").is_file():
        raise ConfigError(f"model: {source} holds no tokenizer ({', '.join(VOCABULARY)}); complete the base's folder")
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    tokenizer.model.save(str(target))
    known = tokenizer.get_vocab(with_added_tokens=False)
    added = {text: number for text, number in tokenizer.get_vocab().items() if text not in known}
    if added:
        _write_json(target / "added_tokens.json", added)


def write_index(index: Mapping[str, Any], folder: Path) -> None:
    """Write model_index.json without local paths and parts that are not written, with the classes' old names."""
    content = {name: value for name, value in index.items() if name not in LOCAL}
    for name, about in content.items():
        if name in LEFT_OUT and isinstance(about, list):
            content[name] = [None, None]
        elif isinstance(about, list) and str(about[-1]).startswith("CLIPTokenizer"):
            content[name] = ["transformers", "CLIPTokenizer"]
    if "safety_checker" in content:
        content["requires_safety_checker"] = False
    _write_json(folder / INDEX, content | {"unet": ["diffusers", "UNet2DConditionModel"]})


def copy_json(source: Path, target: Path) -> None:
    """A config without the local paths that libraries put into it; as it is, to the byte, where it has none."""
    content = json.loads(source.read_text(encoding="utf-8"))
    if any(key in content for key in LOCAL):
        _write_json(target, {key: value for key, value in content.items() if key not in LOCAL})
    elif source != target:
        shutil.copyfile(source, target)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
