"""Single files as bases: read to the bit, proven name by name, everything else refused by its name."""

import dataclasses
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from smpo.core.digests import cache_folder
from smpo.core.errors import ConfigError
from smpo.models.foreign import Header, family_of
from smpo.models.published import published_folder, write_clip_vocabulary, write_configs
from smpo.models.single_file import converted, understood
from smpo.models.sources import local_pipeline
from smpo.models.tensor_files import StoredTensor
from smpo.tiny.folders import weights_folder
from tests.models.single_files import FAMILIES, changed, exported, header

UNET_IN = "model.diffusion_model.input_blocks.0.0.weight"
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def sd(random_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(random_sd, tmp_path_factory.mktemp("sd"))


def models_in_cache() -> list[Path]:
    return list((cache_folder() / "models").glob("*"))


@pytest.fixture(autouse=True)
def _own_cache_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMPO_CACHE", str(tmp_path / "cache"))

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_comes_back_to_the_bit(family: str, tmp_path: Path) -> None:
    original = weights_folder(f"tiny-{family}")
    folder = local_pipeline(str(exported(original, tmp_path, precision="float16")))
    files = sorted(original.rglob("*.safetensors"))
    assert len(files) == 3 + (family == "sdxl")
    for path in files:
        before, after = load_file(path), load_file(folder / path.relative_to(original))
        assert before.keys() == after.keys()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert DiffusionPipeline.from_pretrained(folder)("a cat", num_inference_steps=1).images[0].size == (64, 64)


def test_a_file_is_converted_once_and_again_when_it_changes(sd: Path, tmp_path: Path) -> None:
    first = converted(sd)
    marker = first / "marker"
    marker.touch()
    assert converted(sd) == first and marker.exists()

    def nudge(tensors: Tensors) -> None:
        tensors[UNET_IN][0, 0, 0, 0] += 1

    assert converted(changed(sd, tmp_path / "other", nudge)) != first
    assert sorted(path.suffix for path in models_in_cache()) == ["", "", ".lock", ".lock"]


def test_a_conversion_that_was_killed_is_made_again(sd: Path, tmp_path: Path) -> None:
    folder = converted(sd)
    half = folder.with_name(f".tmp-{folder.name}")
    shutil.move(folder, half)
    (half / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert converted(sd) == folder and (folder / "vae" / "diffusion_pytorch_model.safetensors").exists()


def flattened(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[name.replace("transformer.text_model.", "transformer.")] = tensors.pop(name)


def with_what_checkpoints_also_hold(tensors: Tensors) -> None:
    schedule = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    tensors |= {
        "alphas_cumprod": schedule.alphas_cumprod.half(), "betas": schedule.betas, "posterior_variance": torch.ones(9),
        "model_ema.decay": torch.ones(()), "model_ema.diffusion_modelinput_blocks00weight": torch.ones(3),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(16)[None],
        "sqrt_alphas_cumprod": torch.ones(9), "first_stage_model.loss.logvar": torch.zeros(()),
    }


def with_matrices_in_the_vae(tensors: Tensors) -> None:
    name = "first_stage_model.decoder.mid.attn_1.q.weight"
    tensors[name] = tensors[name][:, :, 0, 0].contiguous()


@pytest.mark.parametrize("change", [flattened, with_what_checkpoints_also_hold, with_matrices_in_the_vae])
def test_forms_that_programs_write_give_the_same_model(
    sd: Path, tmp_path: Path, change: Callable[[Tensors], None]
) -> None:
    plain, other = converted(sd), converted(changed(sd, tmp_path / "other", change))
    assert plain != other
    for path in plain.rglob("*.safetensors"):
        assert path.read_bytes() == (other / path.relative_to(plain)).read_bytes()


def put(**tensors: Tensor) -> Callable[[Tensors], None]:
    return lambda found: found.update({name.replace("__", "."): tensor for name, tensor in tensors.items()})


def keep(*prefixes: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if not name.startswith(prefixes)]:
            del tensors[name]

    return change


def drop(prefix: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return change


def rename(old: str, new: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


def widen(channels: int) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({UNET_IN: torch.zeros(8, channels, 3, 3)})


def rescaled(tensors: Tensors) -> None:
    tensors["alphas_cumprod"] = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=True
    ).alphas_cumprod


def poison(tensors: Tensors) -> None:
    tensors["first_stage_model.decoder.conv_out.bias"][0] = float("nan")


ONE = torch.ones(1)
REFUSED = {
    "v-prediction": (put(v_pred=torch.zeros(0)), r"does not predict noise .* \(v_pred\).*not supported yet"),
    "zero terminal SNR": (put(ztsnr=torch.zeros(0), v_pred=torch.zeros(0)), r"\(v_pred, ztsnr\)"),
    "EDM": (put(edm_mean=ONE), r"\(edm_mean\)"),
    "CosXL": (put(edm_vpred__sigma_max=ONE), r"\(edm_vpred.sigma_max\)"),
    "another schedule": (rescaled, "another noise schedule .*zero terminal SNR"),
    "inpainting": (widen(9), "an inpainting model"),
    "pix2pix": (widen(8), "an instruct-pix2pix model"),
    "depth": (widen(5), "a depth model"),
    "many channels": (widen(16), "whose UNet reads 16 channels"),
    "refiner": (rename("cond_stage_model.transformer.", "conditioner.embedders.0.model."), "an SDXL refiner"),
    "SD2": (rename("cond_stage_model.transformer.", "cond_stage_model.model."), "an SD2.x checkpoint"),
    "fp8": (lambda found: found.update({UNET_IN: found[UNET_IN].to(torch.float8_e4m3fn)}), "stored as F8_E4M3"),
    "int8": (lambda found: found.update({UNET_IN: found[UNET_IN].to(torch.int8)}), "stored as I8"),
    "scaled fp8": (put(scaled_fp8=ONE), "a quantised model"),
    "bitsandbytes": (put(**{f"{UNET_IN}.absmax": ONE}), "a quantised model"),
    "kohya LoRA": (lambda found: (found.clear(), found.update({"lora_unet_mid.lora_up.weight": ONE})), "a LoRA"),
    "diffusers LoRA": (lambda found: (found.clear(), found.update({"unet.mid.lora_A.weight": ONE})), "a LoRA"),
    "LoHa": (lambda found: (found.clear(), found.update({"x.hada_w1_a": ONE})), "a LoRA"),
    "textual inversion": (lambda found: (found.clear(), found.update({"emb_params": ONE})), "a textual inversion"),
    "ControlNet": (lambda found: (found.clear(), found.update({"control_model.x": ONE})), "a ControlNet"),
    "ControlNet of diffusers": (
        lambda found: (found.clear(), found.update({"controlnet_cond_embedding.conv_in.bias": ONE})), "a ControlNet"),
    "AnimateDiff": (
        lambda found: (found.clear(), found.update({"down_blocks.0.motion_modules.0.x": ONE})), "a video model"),
    "diffusers' UNet": (lambda found: (found.clear(), found.update({"down_blocks.0.x": ONE})), "names of diffusers"),
    "FLUX": (lambda found: (found.clear(), found.update({"double_blocks.0.x": ONE})), "another architecture"),
    "SD3": (rename("input_blocks", "joint_blocks"), "another architecture"),
    "UNet alone": (keep("model.diffusion_model."), "without the VAE and the text encoder"),
    "bare UNet": (lambda found: (found.clear(), found.update({"input_blocks.0.0.weight": ONE})), "a UNet alone"),
    "VAE alone": (keep("first_stage_model."), "without the UNet and the text encoder"),
    "bare VAE": (lambda found: (found.clear(), found.update({"decoder.conv_in.weight": ONE})), "a VAE alone"),
    "text encoder alone": (keep("cond_stage_model."), "without the UNet and the VAE"),
    "no VAE": (drop("first_stage_model."), "a checkpoint without the VAE"),
    "no text encoder": (drop("cond_stage_model."), "a checkpoint without the text encoder"),
    "other things": (lambda found: (found.clear(), found.update({"weight": ONE})), "no Stable Diffusion checkpoint"),
    "no tensor": (lambda found: found.clear(), "without a tensor"),
    "one tensor missing": (drop("model.diffusion_model.out.2.bias"), r"lacks 1 tensors \(model.*out.2.bias"),
    "one tensor unknown": (put(stray=ONE), r"has besides 1 tensors \(stray\)"),
    "another shape": (
        put(**{"model.diffusion_model.out.0.bias": ONE}), r"another architecture .*\[1\] instead of \[8\]"),
    "NaN": (poison, "broken: first_stage_model.decoder.conv_out.bias holds NaN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_base_is_refused_by_its_name(sd: Path, tmp_path: Path, name: str) -> None:
    change, expected = REFUSED[name]
    path = changed(sd, tmp_path / "bad", change)
    with pytest.raises(ConfigError, match=expected) as caught:
        local_pipeline(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and "; " in str(caught.value)
    assert not [left for left in models_in_cache() if left.suffix != ".lock"]


@pytest.mark.parametrize(("key", "value"), [
    ("modelspec.prediction_type", "v"), ("modelspec.predict_key", "v"), ("ss_v_parameterization", "True"),
    ("ss_zero_terminal_snr", "True"), ("prediction_type", "v_prediction"),
])
def test_metadata_that_name_another_prediction_are_believed(key: str, value: str) -> None:
    plain = {"modelspec.prediction_type": "epsilon", "ss_v_parameterization": "None"}
    assert family_of(header("sdxl", **plain)) == "sdxl"
    with pytest.raises(ConfigError, match=f"does not predict noise .*{key}={value}"):
        family_of(header("sdxl", **{key: value}))


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("x.safetensors", b"", "is empty"),
    ("x.safetensors", b"GGUF" + b"\0" * 60, "quantised GGUF"),
    ("x.gguf", b"GGUF" + b"\0" * 60, "quantised GGUF"),
    ("x.ckpt", b"PK\x03\x04" + b"\0" * 60, "pickled PyTorch file"),
    ("x.safetensors", b"PK\x03\x04" + b"\0" * 60, "pickled PyTorch file"),
    ("x.pt", b"\x80\x02}q\0." + b"\0" * 60, "pickled PyTorch file"),
    ("x.safetensors", b"<!doctype html>", "a web page"),
    ("x.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ("x.safetensors", b"\1\2\3", "cannot be read as .safetensors"),
    ("x.safetensors", bytes(range(256)) * 40, "cannot be read as .safetensors"),
    ("x.safetensors", b"\xff" * 7 + b"\x7f{", "cannot be read as .safetensors"),
    ("x.safetensors", (2).to_bytes(8, "little") + b"{}", "without a tensor"),
    ("x.safetensors", (2).to_bytes(8, "little") + b"[]", "cannot be read as .safetensors"),
    ("x.onnx", b"\x08\x07" + b"\0" * 60, "is no .safetensors file"),
])
def test_other_kinds_of_files_are_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        converted(tmp_path / name)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_files_are_refused(sd: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.safetensors"
    content = sd.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ConfigError, match="cut.safetensors cannot be read as .safetensors .*download"):
        converted(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_true_key_sets_are_understood_with_the_shipped_configs(family: str) -> None:
    found = header(family)
    extra = {"cond_stage_model.transformer.text_model.embeddings.position_ids": StoredTensor((1, 77), "I64", Tensor)}
    reading = understood(Header({**found.tensors, **extra}, {}), None)
    assert reading.configs == published_folder(family) and reading.stored.keys() == found.tensors.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_true_key_set_of_other_shapes_is_refused(family: str) -> None:
    """Segmind's SSD-1B lacks transformers of SDXL; a widened token embedding has another shape."""
    found = dict(header(family).tensors)
    middle = [name for name in found if name.startswith("model.diffusion_model.middle_block.1.")]
    with pytest.raises(ConfigError, match=f"lacks {len(middle)} tensors .*FILE.config"):
        understood(Header({name: tensor for name, tensor in found.items() if name not in middle}, {}), None)
    words = next(name for name in found if name.endswith("token_embedding.weight"))
    found[words] = dataclasses.replace(found[words], shape=(49409, found[words].shape[1]))
    with pytest.raises(ConfigError, match="instead of .49408"):
        understood(Header(found, {}), None)


def test_the_shipped_tokenizer_is_clips(tmp_path: Path) -> None:
    """Ids as CLIP itself gives them; pads as SD1.5 (end token) and SDXL's second tokenizer ("!", id 0)."""
    write_configs(published_folder("sdxl"), tmp_path)
    first, second = (CLIPTokenizer.from_pretrained(tmp_path / name) for name in ("tokenizer", "tokenizer_2"))
    assert len(first) == 49408 and first.model_max_length == 77
    for tokenizer, pad in ((first, 49407), (second, 0)):
        ids = tokenizer("A photo of a cat", padding="max_length").input_ids
        assert ids == [49406, 320, 1125, 539, 320, 2368, 49407, *[pad] * 70]


def test_the_vocabulary_is_as_long_as_the_configs_say(tmp_path: Path) -> None:
    write_clip_vocabulary(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    assert len(vocabulary) == 49408 and sorted(vocabulary.values()) == list(range(49408))
    assert (vocabulary["<|endoftext|>"], vocabulary["!</w>"], vocabulary["the</w>"]) == (49407, 256, 518)
    assert len((tmp_path / "merges.txt").read_text().splitlines()) == 48895


def test_an_unreadable_config_folder_is_not_taken(sd: Path, tmp_path: Path) -> None:
    """Without configs beside it, a tiny file is taken for SD1.5, which it is not."""
    save_file(load_file(sd), tmp_path / "alone.safetensors")
    with pytest.raises(ConfigError, match="not what its configs say: it lacks .*FILE.config beside"):
        converted(tmp_path / "alone.safetensors")
