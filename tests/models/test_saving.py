"""A saved pipeline opens everywhere: old names, old vocabularies, no local paths, whatever the base's files are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from smpo.core.errors import ConfigError
from smpo.models.saving import save_pipeline
from smpo.tiny.folders import weights_folder

TEXT = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def base(random_sd: Path, tmp_path: Path) -> Path:
    """A copy of the random pipeline, as the newest libraries saved it, with what hub models have beside it."""
    folder = tmp_path / "base"
    shutil.copytree(random_sd, folder, ignore=shutil.ignore_patterns("words"))
    for name in ("README.md", "LICENSE", "text_encoder/flax_model.msgpack", "vae/README.md"):
        (folder / name).write_text("not a part")
    return folder


def saved(base: Path) -> Path:
    out = base.with_name("out")
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    with torch.no_grad():
        unet.conv_in.weight.mul_(1.5)
    save_pipeline(base, unet, out)
    return out


def picture(folder: Path) -> np.ndarray:
    pipeline = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(3)
    return pipeline("a thing", num_inference_steps=2, generator=draw, output_type="np").images[0]


def test_only_the_parts_own_files_are_written(base: Path) -> None:
    out = saved(base)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", TEXT, "tokenizer/merges.txt",
        "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors", "vae/config.json", VAE,
    ]
    assert (out / VAE).read_bytes() == (base / VAE).read_bytes()


def test_no_file_names_a_place_on_this_machine(base: Path) -> None:
    for config in ("vae/config.json", "unet/config.json", "model_index.json", "tokenizer/tokenizer_config.json"):
        content = json.loads((base / config).read_text())
        (base / config).write_text(json.dumps(content | {"_name_or_path": str(base), "name_or_path": str(base)}))
    for path in saved(base).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(base).encode() not in content and b"/work" not in content and b"name_or_path" not in content


def test_text_encoders_get_the_names_that_all_versions_read(base: Path) -> None:
    """transformers >= 5.6 drops `text_model.` when it saves; older ones then fill the encoder with random numbers."""
    before = load_file(base / TEXT)
    assert not any(name.startswith("text_model.") for name in before)
    after = load_file(saved(base) / TEXT)
    assert {name.removeprefix("text_model.") for name in after} == set(before)
    assert all(name.startswith("text_model.") and torch.equal(tensor, before[name.removeprefix("text_model.")])
               for name, tensor in after.items())


def test_files_with_old_names_are_copied_to_the_byte() -> None:
    for name in ("tiny-sd", "tiny-sdxl"):
        for path in weights_folder(name).glob("text_encoder*/model.safetensors"):
            assert all(key.startswith(("text_model.", "text_projection.")) for key in load_file(path))


def test_embedded_models_are_copied_to_the_byte_but_for_the_unet(tmp_path: Path) -> None:
    for name in ("tiny-sd", "tiny-sdxl"):
        folder, out = weights_folder(name), tmp_path / name
        save_pipeline(folder, UNet2DConditionModel.from_pretrained(folder / "unet"), out)
        for path in out.rglob("*"):
            if path.is_file() and path.parent.name != "unet" and path.name != "model_index.json":
                assert path.read_bytes() == (folder / path.relative_to(out)).read_bytes(), path
        before, after = (json.loads((place / "model_index.json").read_text()) for place in (folder, out))
        assert before == after


def test_vocabulary_and_merges_are_written_from_tokenizer_json(base: Path) -> None:
    tokenizer = base / "tokenizer" / "tokenizer.json"
    whole = Tokenizer.from_file(str(tokenizer))
    whole.add_tokens(["<cat-toy>"])
    whole.save(str(tokenizer))
    assert not (base / "tokenizer" / "vocab.json").exists()
    out = saved(base) / "tokenizer"
    (out / "tokenizer.json").unlink()
    old, new = CLIPTokenizer.from_pretrained(out), CLIPTokenizer.from_pretrained(base / "tokenizer")
    for text in ("a thing", "Two <cat-toy> (things)!", ""):
        assert old(text)["input_ids"] == new(text)["input_ids"]


def halved(path: Path, *, name: str) -> None:
    save_file({key: tensor.half() for key, tensor in load_file(path).items()}, path.with_name(name))
    path.unlink()


def as_fp16_variant(base: Path) -> None:
    halved(base / TEXT, name="model.fp16.safetensors")
    halved(base / VAE, name="diffusion_pytorch_model.fp16.safetensors")


def as_pickles(base: Path) -> None:
    for path, name in ((base / TEXT, "pytorch_model.bin"), (base / VAE, "diffusion_pytorch_model.bin")):
        torch.save(load_file(path), path.with_name(name))
        path.unlink()


def as_pieces(base: Path) -> None:
    for path in (base / TEXT, base / VAE):
        tensors, stem = load_file(path), path.name.removesuffix(".safetensors")
        names = sorted(tensors)
        where = {name: f"{stem}-0000{1 + (number > 9)}-of-00002.safetensors" for number, name in enumerate(names)}
        for file in sorted(set(where.values())):
            save_file({name: tensors[name] for name in names if where[name] == file}, path.with_name(file),
                      metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": where}
        path.with_name(f"{stem}.safetensors.index.json").write_text(json.dumps(index))
        path.unlink()


def as_links(base: Path) -> None:
    """The hub's cache: every file is a link to a blob."""
    blobs = base.with_name("blobs")
    blobs.mkdir()
    for number, path in enumerate(sorted(base.rglob("*.*"))):
        if path.is_file():
            path.rename(blobs / str(number))
            path.symlink_to(blobs / str(number))


def as_stored_in_half_precision(base: Path) -> None:
    """As SDXL's own base declares it: transformers 5 then loads half precision that diffusers' UNet cannot read."""
    halved(base / TEXT, name="half")
    (base / "text_encoder/half").rename(base / TEXT)
    config = base / "text_encoder" / "config.json"
    content = json.loads(config.read_text())
    content.pop("dtype", None)
    config.write_text(json.dumps(content | {"torch_dtype": "float16"}))


@pytest.mark.parametrize("change", [
    as_fp16_variant, as_pickles, as_pieces, as_links, as_stored_in_half_precision,
])
def test_bases_of_any_kind_give_a_folder_that_opens_plainly(base: Path, change: Callable[[Path], None]) -> None:
    expected = picture(saved(base))
    shutil.rmtree(base.with_name("out"))
    change(base)
    out = saved(base)
    assert not any(path.is_symlink() for path in out.rglob("*"))
    rounding = 0.02 if change in (as_fp16_variant, as_stored_in_half_precision) else 0
    assert np.abs(picture(out) - expected).max() <= rounding


def test_a_safety_checker_is_left_out(base: Path) -> None:
    index = json.loads((base / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
              "feature_extractor": ["transformers", "CLIPImageProcessor"], "requires_safety_checker": True,
              "tokenizer": ["transformers", "CLIPTokenizerFast"]}
    (base / "model_index.json").write_text(json.dumps(index))
    found = json.loads((saved(base) / "model_index.json").read_text())
    assert (found["safety_checker"], found["feature_extractor"]) == ([None, None], [None, None])
    assert found["requires_safety_checker"] is False and found["tokenizer"] == ["transformers", "CLIPTokenizer"]


def test_a_part_that_is_not_there_is_named(base: Path) -> None:
    shutil.rmtree(base / "scheduler")
    with pytest.raises(ConfigError, match="scheduler does not exist, but model_index.json names it; complete"):
        saved(base)


def test_a_pickle_with_more_than_tensors_is_refused(base: Path) -> None:
    (base / VAE).unlink()
    torch.save({"weight": Path("/")}, base / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot load .vae. of .*model.bin is damaged or no such file"):
        saved(base)
