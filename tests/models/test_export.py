"""Models as single files: what diffusers' reader gets out of them, at tiny and at true size, and what is refused."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from smpo.cli.app import app
from smpo.core.errors import ConfigError
from smpo.models.export import export
from smpo.models.original import TEXT
from smpo.models.published import published_folder
from smpo.models.single_file import part_shapes
from smpo.models.tensor_files import StoredTensor, write_safetensors
from smpo.tiny.folders import weights_folder
from tests.models.single_files import FAMILIES, exported, true_size

PIPELINES = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def drawn(pipeline: Any) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(5)
    return pipeline("a red cat", num_inference_steps=2, generator=draw, output_type="pt").images


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_reads_the_same_weights_and_draws_the_same_image(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float16 files of models that are stored in float16: nothing is lost, largest difference 0."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = weights_folder(f"tiny-{family}")
    file = exported(folder, tmp_path, precision="float16")
    kind = PIPELINES[family]
    read = kind.from_single_file(file, config=str(file.with_suffix(".config")), torch_dtype=torch.float32)
    direct = kind.from_pretrained(folder)
    for part in ("unet", "vae", *TEXT[family]):
        expected, found = getattr(direct, part).state_dict(), getattr(read, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert torch.equal(drawn(read), drawn(direct))


@pytest.mark.parametrize(("family", "unet", "vae", "text"), [("sd", 686, 248, 196), ("sdxl", 1680, 248, 196 + 389)])
def test_at_true_size_diffusers_reader_gets_every_tensor(family: str, unet: int, vae: int, text: int) -> None:
    """On the meta device. Stability's own sd_xl_base_1.0.safetensors has 2,515 tensors: these 2,513, position ids and
    OpenCLIP's logit scale, which no drawing needs. SD1.5's have 1,131: these 1,130 and position ids, besides buffers.
    """
    configs, shapes = published_folder(family), {}
    file = {name: tensor.read() for name, tensor in true_size(family).items()}
    assert len(file) == unet + vae + text
    for part in ("unet", "vae", *TEXT[family]):
        shapes[part] = part_shapes(configs, part)
    config = {part: json.loads((configs / part / "config.json").read_text()) for part in shapes}
    got = {
        "unet": convert_ldm_unet_checkpoint(dict(file), config["unet"]),
        "vae": convert_ldm_vae_checkpoint(dict(file), config["vae"]), "text_encoder": convert_ldm_clip_checkpoint(file),
    }
    if family == "sdxl":
        got["text_encoder_2"] = convert_open_clip_checkpoint(None, file, prefix=TEXT["sdxl"]["text_encoder_2"])
    for part, expected in shapes.items():
        assert {name: tuple(tensor.shape) for name, tensor in got[part].items()} == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_names_at_true_size_are_the_original_ones(family: str) -> None:
    """Names that programs look for: ComfyUI's and diffusers' marks of each family, and places by hand."""
    names = {name: tensor.shape for name, tensor in true_size(family).items()}
    assert names["model.diffusion_model.input_blocks.0.0.weight"] == (320, 4, 3, 3)
    assert names["first_stage_model.encoder.down.0.downsample.conv.weight"] == (128, 128, 3, 3)
    assert names["first_stage_model.decoder.up.3.upsample.conv.weight"] == (512, 512, 3, 3)
    assert names["first_stage_model.decoder.up.0.block.0.nin_shortcut.weight"] == (128, 256, 1, 1)
    assert names["first_stage_model.decoder.mid.attn_1.proj_out.weight"] == (512, 512, 1, 1)
    if family == "sd":
        assert names["model.diffusion_model.output_blocks.11.0.skip_connection.weight"] == (320, 640, 1, 1)
        assert names["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] == (320, 768)
        assert names["cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"] == (77, 768)
    else:
        assert names["model.diffusion_model.input_blocks.4.1.transformer_blocks.1.attn2.to_k.weight"] == (640, 2048)
        assert names["model.diffusion_model.label_emb.0.0.weight"] == (1280, 2816)
        second = "conditioner.embedders.1.model."
        assert names[f"{second}transformer.resblocks.9.mlp.c_proj.bias"] == (1280,)
        assert names[f"{second}transformer.resblocks.31.attn.in_proj_weight"] == (3840, 1280)
        assert names[f"{second}positional_embedding"] == (77, 1280)
        assert names[f"{second}text_projection"] == (1280, 1280)


def test_the_metadata_follow_the_model_spec(random_sdxl: Path, tmp_path: Path) -> None:
    file = exported(random_sdxl, tmp_path)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    length = int.from_bytes(file.read_bytes()[:8], "little")
    assert metadata == {
        "format": "pt", "modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "sgm", "modelspec.title": "tiny", "modelspec.prediction_type": "epsilon",
        "modelspec.description": metadata["modelspec.description"], "modelspec.resolution": "32x32",
        "modelspec.hash_sha256": "0x" + hashlib.sha256(file.read_bytes()[8 + length :]).hexdigest(),
    }
    again = tmp_path / "again"
    assert exported(random_sdxl, again).read_bytes() == file.read_bytes()
    assert str(random_sdxl).encode() not in file.read_bytes()


@pytest.fixture
def base(random_sd: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_sd, tmp_path / "base"))


def rewrite(base: Path, name: str, **changes: Any) -> None:
    content = json.loads((base / name).read_text())
    (base / name).write_text(json.dumps(content | changes))


def scale_weight(base: Path, factor: float) -> None:
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"] *= factor
    save_file(tensors, path)


def test_old_names_of_the_vaes_attention_are_read(base: Path, tmp_path: Path) -> None:
    """diffusers before 0.17 wrote query, key, value, proj_attn, as SD1.5's own folder has it."""
    plain, path = exported(base, tmp_path / "plain"), base / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if ".attentions." in name]:
        old = name
        for new, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            old = old.replace(new, before)
        tensors[old] = tensors.pop(name)
    save_file(tensors, path)
    assert exported(base, tmp_path / "old").read_bytes() == plain.read_bytes()


def test_what_float16_cannot_hold_is_refused(base: Path, tmp_path: Path) -> None:
    scale_weight(base, 1e7)
    with pytest.raises(ConfigError, match=r"conv_in.weight holds .*float16 ends at 65504; write float32"):
        exported(base, tmp_path, precision="float16")
    assert not list(tmp_path.glob("*.safetensors*"))
    exported(base, tmp_path, precision="float32")


def test_broken_weights_are_refused(base: Path, tmp_path: Path) -> None:
    scale_weight(base, float("inf"))
    with pytest.raises(ConfigError, match="conv_in.weight holds NaN or infinity"):
        exported(base, tmp_path)


@pytest.mark.parametrize(("name", "changes", "expected"), [
    ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "predicts v_prediction"),
    ("unet/config.json", {"cross_attention_dim": 1024}, "SD2.x model"),
    ("model_index.json", {"_class_name": "FluxPipeline"}, "is a FluxPipeline; only StableDiffusionPipeline"),
    ("unet/config.json", {"cross_attention_dim": 32}, "have other shapes than config.json says"),
    ("unet/config.json", {"layers_per_block": 2}, "do not agree with its config.json"),
    ("unet/config.json", {"mid_block_type": None}, "do not agree with its config.json"),
])
def test_pipelines_without_a_single_file_layout_are_refused(
    base: Path, tmp_path: Path, name: str, changes: dict[str, Any], expected: str
) -> None:
    rewrite(base, name, **changes)
    with pytest.raises(ConfigError, match=expected):
        exported(base, tmp_path / "out")


def test_only_a_new_safetensors_file_is_written(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must end in .safetensors"):
        export(base, tmp_path / "x.ckpt", precision="float16", title="x")
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(ConfigError, match="exists already; delete it"):
        export(base, tmp_path / "x.safetensors", precision="float16", title="x")


def test_the_writer_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    alive, most = 0, 0

    class Counted:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            self.tensor = torch.zeros(1000)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def read() -> torch.Tensor:
        return Counted().tensor

    tensors = {str(number): StoredTensor((1000,), "F32", read) for number in range(50)}
    write_safetensors(tmp_path / "x.safetensors", tensors, {"a": "b"})
    assert most == 1 and load_file(tmp_path / "x.safetensors").keys() == tensors.keys()


def test_the_verb(base: Path, tmp_path: Path) -> None:
    """A run's folder is as good as a pipeline's; float16 unless told otherwise."""
    run = tmp_path / "run" / "train"
    run.mkdir(parents=True)
    base.rename(run / "model")
    for number, source in enumerate((tmp_path / "run", run, run / "model")):
        out = tmp_path / f"{number}.safetensors"
        result = CliRunner().invoke(app, ["export", str(source), str(out), "--title", "mine"])
        assert result.exit_code == 0 and str(out.with_suffix(".config")) in result.output, result.output
        assert all(tensor.dtype == torch.float16 for tensor in load_file(out).values())
    assert isinstance(CliRunner().invoke(app, ["export", str(tmp_path), str(out)]).exception, ConfigError)
    wrong = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "y.safetensors"), "--dtype", "fp8"])
    assert "must be float16 or float32, got fp8" in str(wrong.exception)
