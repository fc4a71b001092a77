"""Damaged, changed and foreign model folders: each is refused in one line, and what is accepted equals the libraries'.

Every case copies a tiny random pipeline by hard links, damages one file (which is then written anew), and proves it.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from smpo.core.errors import ConfigError
from smpo.models import FAMILIES, loading
from smpo.models.folders import Part
from smpo.models.loading import KINDS, empty_network, load_network, prove_network
from smpo.models.proof import prove_pipeline, prove_training
from smpo.models.sd import StableDiffusion
from smpo.models.weight_files import Header, WeightFile
from smpo.sampling.options import GenerationOptions
from smpo.sampling.pipelines import load_pipeline

Damage = Callable[[Path], None]
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT, TEXT_2 = "text_encoder/model.safetensors", "text_encoder_2/model.safetensors"
CPU = torch.device("cpu")


def copied(folder: Path, out: Path) -> Path:
    """A copy of hard links; whoever changes a file replaces it."""
    return shutil.copytree(folder, out, copy_function=os.link)


def replaced(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


# --- kinds of damage ---

def text(file: str, content: str) -> Damage:
    return lambda folder: replaced(folder / file, content.encode())


def config(file: str, **changes: Any) -> Damage:
    """Other values in a JSON file; ... removes a key."""
    def damage(folder: Path) -> None:
        changed = {**json.loads((folder / file).read_text()), **changes}
        kept = {key: value for key, value in changed.items() if value is not ...}
        replaced(folder / file, json.dumps(kept).encode())
    return damage


def weights(file: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Damage:
    def damage(folder: Path) -> None:
        changed = change(load_file(folder / file))
        (folder / file).unlink()
        save_file({name: tensor.contiguous() for name, tensor in changed.items()}, folder / file)
    return damage


def cut(file: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / file).read_bytes()
        replaced(folder / file, content[: int(len(content) * share)])
    return damage


def removed(name: str) -> Damage:
    def damage(folder: Path) -> None:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    return damage


def becomes_folder(file: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()
    return damage


def becomes_link(file: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(folder / "nothing")
    return damage


def becomes_pipe(file: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)
    return damage


def without(count: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: dict(sorted(tensors.items())[count:])


def renamed(change: Callable[[str], str]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


def one(change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Another value of the last tensor by name."""
    return lambda tensors: {**tensors, max(tensors): change(tensors[max(tensors)])}


def with_nan(tensor: Tensor) -> Tensor:
    return torch.cat([tensor.flatten()[:-1], torch.tensor([float("nan")])]).view(tensor.shape)


def both(*damages: Damage) -> Damage:
    def damage(folder: Path) -> None:
        for each in damages:
            each(folder)
    return damage


IN_UNET = "model: cannot load 'unet' of "
SCHEDULER = "scheduler/scheduler_config.json"
CASES: list[tuple[str, Damage, str]] = [  # family, damage, a piece of the message
    # weights
    ("sd", weights(UNET, without(2)), "it lacks 2 of "),
    ("sd", weights(VAE, without(2)), "it lacks 2 of "),
    ("sd", weights(TEXT, without(2)), "it lacks 2 of 36 tensors, the first is "),
    ("sd", weights(TEXT, renamed(lambda name: f"clip.{name}")), "which it has no place for"),
    ("sd", weights(TEXT, renamed(lambda name: f"text_model.text_model.{name}")), "it lacks 36 of 36"),
    ("sd", weights(TEXT, lambda t: {**t, "text_model." + min(t): t[min(t)].clone()}), "two of its tensors are the"),
    ("sd", weights(UNET, lambda t: {**t, "conv_in.lora_A.weight": torch.ones(1)}), "has no place for 1 of "),
    ("sd", weights(UNET, one(lambda t: torch.cat([t, t]))), "have another shape"),
    ("sd", weights(UNET, one(with_nan)), "has values that are NaN or infinite"),
    ("sd", weights(VAE, one(lambda t: t / 0)), "has values that are NaN or infinite"),
    ("sd", weights(TEXT, one(with_nan)), "has values that are NaN or infinite"),
    ("sd", weights(UNET, one(lambda t: t.to(torch.int8))), "1 of "),
    ("sd", weights(UNET, one(lambda t: t.to(torch.float8_e4m3fn))), "are F8_E4M3"),
    ("sdxl", weights(TEXT_2, lambda t: {n: v for n, v in t.items() if n != "text_projection.weight"}),
     "it lacks 1 of 37 tensors, the first is text_projection.weight"),
    ("sdxl", weights(TEXT_2, without(1)), "it lacks 1 of 37"),
    # files of weights
    ("sd", removed(UNET), "it has no weights: diffusion_pytorch_model.safetensors, "),
    ("sd", removed(TEXT),
     "it has no weights: model.safetensors, pytorch_model.safetensors, model.bin, pytorch_model.bin"),
    ("sd", text(UNET, ""), "diffusion_pytorch_model.safetensors is empty"),
    ("sd", text(UNET, "no tensors at all"), "diffusion_pytorch_model.safetensors is damaged"),
    ("sd", cut(UNET, 0.5), "diffusion_pytorch_model.safetensors is damaged"),
    ("sd", cut(VAE, 0.999), "diffusion_pytorch_model.safetensors is damaged"),
    ("sd", cut(TEXT, 0.01), "model.safetensors is damaged"),
    ("sd", becomes_folder(UNET), "diffusion_pytorch_model.safetensors is no file"),
    ("sd", becomes_link(UNET), "diffusion_pytorch_model.safetensors is a link to nothing"),
    ("sd", becomes_pipe(VAE), "diffusion_pytorch_model.safetensors is no file"),
    ("sd", both(removed(UNET), lambda f: (f / "unet/diffusion_pytorch_model.bin").write_bytes(b"garbage")),
     "diffusion_pytorch_model.bin is damaged"),
    ("sd", both(removed(UNET), lambda f: torch.save([1], f / "unet/diffusion_pytorch_model.bin")),
     "it holds a list, and should hold named tensors"),
    ("sd", both(removed(UNET), lambda f: torch.save({"a": 1}, f / "unet/diffusion_pytorch_model.bin")),
     "its entry 'a' is no tensor"),
    ("sd", both(removed(UNET), lambda f: torch.save({"a": nn.Linear}, f / "unet/diffusion_pytorch_model.bin")),
     "diffusion_pytorch_model.bin is damaged"),
    ("sd", both(removed(UNET), lambda f: (f / f"{UNET}.index.json").write_text("{}")), "has no weight_map"),
    ("sd", both(removed(UNET), lambda f: (f / f"{UNET}.index.json").write_text('{"weight_map": {"a": "../vae/x"}}')),
     "names '../vae/x', which is no file beside it"),
    ("sd", both(removed(UNET), lambda f: (f / f"{UNET}.index.json").write_text('{"weight_map": {"a": "b"}}')),
     "(b is missing)"),
    # JSON
    ("sd", removed("unet/config.json"), IN_UNET),
    ("sd", text("unet/config.json", "{"), "config.json is no JSON"),
    ("sd", text("unet/config.json", "[1]"), "config.json holds a list, and should hold a mapping"),
    ("sd", text("vae/config.json", ""), "config.json is empty"),
    ("sd", lambda folder: replaced(folder / "vae/config.json", b'{"a": "\xff"}'), "config.json is no JSON"),
    ("sd", text("text_encoder/config.json", "[" * 100_000), "config.json is no JSON"),
    ("sd", becomes_folder("vae/config.json"), "config.json is no file"),
    ("sd", becomes_link("text_encoder/config.json"), "config.json is a link to nothing"),
    ("sd", text("model_index.json", "null"), "model_index.json holds a NoneType"),
    ("sd", text("model_index.json", "{}"), "model_index.json names no _class_name"),
    ("sd", removed("model_index.json"), "has no model_index.json"),
    ("sd", text(SCHEDULER, "{'a': 1}"), "scheduler_config.json is no JSON"),
    ("sd", removed(SCHEDULER), "scheduler_config.json is missing"),
    # classes
    ("sd", config("unet/config.json", _class_name="UNet2DModel"), "it is a UNet2DModel, and a UNet2DConditionModel"),
    ("sd", config("vae/config.json", _class_name="AutoencoderTiny"), "it is a AutoencoderTiny"),
    ("sd", config("model_index.json", vae=["diffusers", "AutoencoderTiny"]), "its vae is a AutoencoderTiny"),
    ("sd", config("model_index.json", text_encoder=["transformers", "T5EncoderModel"]), "is a T5EncoderModel"),
    ("sd", config("model_index.json", tokenizer=["transformers", "T5Tokenizer"]), "its tokenizer is a T5Tokenizer"),
    ("sd", config("model_index.json", unet=["diffusers", None]), "model_index.json names no unet"),
    ("sd", config("model_index.json", scheduler=...), "model_index.json names no scheduler"),
    ("sd", config("model_index.json", controlnet=["diffusers", "ControlNetModel"]), "controlnet is no part"),
    ("sd", config("model_index.json", _class_name="StableDiffusionXLPipeline"), "set model.name=sdxl"),
    ("sdxl", config("model_index.json", _class_name="StableDiffusionPipeline"), "set model.name=sd"),
    ("sd", config("model_index.json", _class_name="FluxPipeline"), "it is a FluxPipeline; known: "),
    ("sd", config("model_index.json", _class_name="StableDiffusionInpaintPipeline"), "StableDiffusionInpaintPipeline"),
    ("sdxl", config("model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline", text_encoder=[None, None]),
     "it is the SDXL refiner"),
    ("sd", config("text_encoder/config.json", model_type="t5"), "model_type is 't5'"),
    ("sd", removed("vae"), "model_index.json names vae, and there is no such folder"),
    ("sd", removed("tokenizer"), "model_index.json names tokenizer, and there is no such folder"),
    # values of configs
    ("sd", config("unet/config.json", in_channels=9), "it has 9 input channels, so it is for inpainting"),
    ("sd", config("unet/config.json", in_channels=8), "so it is for InstructPix2Pix"),
    ("sd", config("unet/config.json", in_channels=3), "it takes 3 and gives 4 channels"),
    ("sd", config("unet/config.json", out_channels=8), "it takes 4 and gives 8 channels"),
    ("sd", config("vae/config.json", latent_channels=16), "and (4, 3, 3) is needed"),
    ("sd", config("unet/config.json", in_channels=-4), "in_channels is -4"),
    ("sd", config("unet/config.json", in_channels="4"), "in_channels is '4', and must be one of: int"),
    ("sd", config("unet/config.json", block_out_channels=[8, 10**12]), "block_out_channels is 1000000000000"),
    ("sd", config("unet/config.json", block_out_channels=[16, 32]), "have another shape than config.json describes"),
    ("sd", config("unet/config.json", layers_per_block=10**9), "layers_per_block is 1000000000"),
    ("sd", config("unet/config.json", layers_per_block=2), "it lacks "),
    ("sd", config("unet/config.json", norm_num_groups=0), "norm_num_groups is 0"),
    ("sd", config("unet/config.json", norm_num_groups=3), "describes no UNet2DConditionModel"),
    ("sd", config("unet/config.json", norm_eps="1e-5"), "norm_eps is '1e-5', and must be one of: float"),
    ("sd", config("unet/config.json", norm_eps=-1.0), "norm_eps is -1.0"),
    ("sd", config("unet/config.json", act_fn="nothing"), "describes no UNet2DConditionModel"),
    ("sd", config("unet/config.json", down_block_types=["DownBlock2D"]), "describes no UNet2DConditionModel"),
    ("sd", config("unet/config.json", cross_attention_dim=24), "it reads prompts of width 24, and the text encoders"),
    ("sd", config("unet/config.json", sample_size=None), "sample_size is None"),
    ("sd", config("unet/config.json", sample_size=10**6), "sample_size is 1000000"),
    ("sd", config("unet/config.json", time_cond_proj_dim=256), "guidance-distilled"),
    ("sd", config("unet/config.json", class_embed_type="timestep"), "class_embed_type is 'timestep'"),
    ("sd", config("unet/config.json", encoder_hid_dim_type="text_proj"), "encoder_hid_dim_type is 'text_proj'"),
    ("sd", config("unet/config.json", addition_embed_type="text_time"), "set model.name=sdxl"),
    ("sd", config("unet/config.json", addition_embed_type="image"), "addition_embed_type is 'image'"),
    ("sd", config("unet/config.json", attention_type="gated"), "attention_type is 'gated'"),
    ("sd", config("unet/config.json", quantization_config={"bits": 8}), "quantization_config is no setting"),
    ("sdxl", config("unet/config.json", addition_embed_type=None), "set model.name=sd"),
    ("sdxl", config("unet/config.json", projection_class_embeddings_input_dim=56), "have 16 + 6 x 8"),
    ("sdxl", config("unet/config.json", addition_time_embed_dim=None), "have 16 + 6 x None"),
    ("sdxl", config("unet/config.json", cross_attention_dim=16), "the text encoders give 16 + 16"),
    ("sd", config("vae/config.json", scaling_factor=0), "scaling_factor is 0"),
    ("sd", config("vae/config.json", scaling_factor="0.5"), "scaling_factor is '0.5'"),
    ("sd", config("vae/config.json", scaling_factor=float("nan")), "scaling_factor is nan"),
    ("sdxl", config("vae/config.json", scaling_factor=...), "has no scaling_factor"),
    ("sd", config("vae/config.json", shift_factor=0.1), "shift_factor is 0.1, which StableDiffusionPipeline does not"),
    ("sd", config("vae/config.json", latents_mean=[1.0] * 4, latents_std=[1.0] * 4), "does not undo when it decodes"),
    ("sdxl", config("vae/config.json", latents_mean=[1.0] * 4), "of latents_mean and latents_std one is set"),
    ("sdxl", config("vae/config.json", latents_mean=[1.0] * 3, latents_std=[1.0] * 3), "and must have 4 numbers"),
    ("sdxl", config("vae/config.json", latents_mean=[1.0] * 4, latents_std=[1.0, 1.0, 1.0, 0.0]), "must be > 0"),
    ("sd", config("text_encoder/config.json", hidden_size=24), "the text encoders give 24"),
    ("sd", config("text_encoder/config.json", num_attention_heads=3), "describes no CLIPTextModel"),
    ("sd", config("text_encoder/config.json", hidden_act="nothing"), "describes no CLIPTextModel"),
    ("sd", config("text_encoder/config.json", num_hidden_layers=3), "it lacks 16 of 52"),
    ("sd", config("text_encoder/config.json", num_hidden_layers="two"), "describes no CLIPTextModel"),
    ("sd", config("text_encoder/config.json", use_attention_mask=True), "use_attention_mask is set"),
    ("sd", config("text_encoder/config.json", quantization_config={"a": 1}), "quantization_config is set"),
    # tokenizers
    ("sd", config("tokenizer/tokenizer_config.json", model_max_length=...), "its model_max_length is 1e+30"),
    ("sd", config("tokenizer/tokenizer_config.json", model_max_length=77), "its model_max_length is 77"),
    ("sd", config("tokenizer/tokenizer_config.json", pad_token=None), "it has no pad_token"),
    ("sd", text("tokenizer/tokenizer_config.json", "{"), "tokenizer_config.json is no JSON"),
    ("sd", text("tokenizer/tokenizer.json", "[]"), "tokenizer.json holds a list"),
    ("sd", text("tokenizer/tokenizer.json", "{}"), "model: cannot load 'tokenizer' of "),
    ("sd", removed("tokenizer/tokenizer.json"), "vocab.json is missing"),
    ("sd", both(config("text_encoder/config.json", vocab_size=1000),
                weights(TEXT, lambda t: {n: v.repeat(6, 1)[:1000] if "token_" in n else v for n, v in t.items()})),
     "its vocabulary has 190 entries, and the text encoder's 1000"),
    ("sdxl", config("tokenizer_2/tokenizer_config.json", model_max_length=8), "its model_max_length is 8"),
    ("sdxl", config("text_encoder_2/config.json", eos_token_id=5), "and the text encoder looks for 5"),
    # schedulers
    ("sd", config(SCHEDULER, prediction_type="sample"), "prediction_type is 'sample'"),
    ("sd", config(SCHEDULER, prediction_type="sample"), "prediction_type is 'sample'"),
    ("sd", config(SCHEDULER, prediction_type="flow_prediction"), "flow_prediction"),
    ("sd", config(SCHEDULER, rescale_betas_zero_snr=True), "rescale_betas_zero_snr"),
    ("sd", config(SCHEDULER, beta_schedule="sigmoid"), "beta_schedule is 'sigmoid'; known: linear"),
    ("sd", config(SCHEDULER, beta_start=-1.0), "0 < start <= end < 1, got -1.0"),
    ("sd", config(SCHEDULER, beta_start="a"), "beta_start is 'a', and must be one of: float"),
    ("sd", config(SCHEDULER, beta_start=0.9, beta_end=0.1), "0 < start <= end < 1"),
    ("sd", config(SCHEDULER, num_train_timesteps=500), "training.max_timestep must be less than the 500 timesteps"),
    ("sd", config(SCHEDULER, num_train_timesteps=-1), "num_train_timesteps is -1"),
    ("sd", config(SCHEDULER, num_train_timesteps=10**9), "num_train_timesteps is 1000000000"),
    ("sd", config(SCHEDULER, num_train_timesteps=True), "num_train_timesteps is True"),
    ("sd", config(SCHEDULER, trained_betas=[0.1, 0.2]), "must be a list of num_train_timesteps=1000 numbers"),
    ("sd", config(SCHEDULER, trained_betas=[2.0] * 1000), "trained_betas must lie between 0 and 1"),
    ("sd", config(SCHEDULER, trained_betas="x"), "trained_betas is 'x'"),
    ("sd", config(SCHEDULER, trained_betas=[]), "must be a list of num_train_timesteps=1000 numbers"),
    ("sd", config("model_index.json", scheduler=["diffusers", "EDMEulerScheduler"]), "EDMEulerScheduler is no"),
    ("sd", config(SCHEDULER, _class_name="FlowMatchEulerDiscreteScheduler"), "FlowMatchEulerDiscreteScheduler is no"),
    ("sd", config(SCHEDULER, use_flow_sigmas=True), "use_flow_sigmas is True"),
    ("sd", config(SCHEDULER, some_new_key=1), "some_new_key is not known and would be ignored"),
    ("sd", config(SCHEDULER, timestep_spacing=7), "timestep_spacing is 7"),
]


def proof_of(name: str, folder: Path) -> None:
    prove_training(FAMILIES.build({"name": name, "source": str(folder)}), (None,), max_timestep=999)


@pytest.mark.parametrize(("name", "damage", "piece"), CASES, ids=[f"{i}-{c[2]}"[:40] for i, c in enumerate(CASES)])
def test_a_damaged_folder_is_refused_in_one_line(
    name: str, damage: Damage, piece: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = copied(request.getfixturevalue(f"random_{name}"), tmp_path / "model")
    damage(folder)
    with pytest.raises(ConfigError) as error:
        proof_of(name, folder)
    message = str(error.value)
    assert piece in message and "\n" not in message and len(message) < 1000
    assert str(tmp_path) in message or "training.max_timestep" in message
    assert "; " in message  # the way out


@pytest.mark.parametrize(("name", "other"), [("sd", "sdxl"), ("sdxl", "sd")])
def test_another_familys_folder_names_that_family(name: str, other: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"random_{other}")
    for use in (
        lambda family: family.load_denoiser(), lambda family: family.load_vae(), lambda family: family.path,
        lambda family: family.encode_prompts(["a"], CPU), lambda family: family.pipeline(),
    ):
        with pytest.raises(ConfigError, match=f"set model.name={other}"):
            use(FAMILIES.build({"name": name, "source": str(folder)}))


def test_start_weights_must_fit_the_base(random_sd: Path, random_sdxl: Path, tmp_path: Path) -> None:
    """init_weights and reference_weights: another family's; of another width; damaged."""
    family = StableDiffusion(source=str(random_sd))
    for source in (random_sdxl, random_sdxl / "unet"):
        with pytest.raises(ConfigError, match="if it is one of SDXL, set model.name=sdxl"):
            prove_pipeline(family, [str(source)])
    folder = copied(random_sd, tmp_path / "model")
    weights(UNET, one(with_nan))(folder)
    prove_pipeline(family, [str(random_sd / "unet")])
    with pytest.raises(ConfigError, match="has values that are NaN or infinite"):
        prove_pipeline(family, [None, str(folder / "unet")])


def test_a_folder_is_proven_again_when_a_file_changes(random_sd: Path, tmp_path: Path) -> None:
    folder = copied(random_sd, tmp_path / "model")
    family = StableDiffusion(source=str(folder))
    prove_pipeline(family)
    weights(TEXT, one(with_nan))(folder)
    with pytest.raises(ConfigError, match="NaN or infinite"):
        prove_pipeline(family)
    config("unet/config.json", in_channels=9)(folder)
    with pytest.raises(ConfigError, match="inpainting"):
        prove_pipeline(family)


def test_generation_proves_what_it_draws_with(random_sd: Path, tmp_path: Path) -> None:
    folder = copied(random_sd, tmp_path / "model")
    weights(VAE, without(1))(folder)
    with pytest.raises(ConfigError, match="cannot load 'vae' of .* .it lacks 1 of "):
        load_pipeline(str(folder), GenerationOptions(num_inference_steps=1))
    config("model_index.json", _class_name="FluxPipeline")(folder)
    with pytest.raises(ConfigError, match="it is a FluxPipeline; known: StableDiffusionPipeline, StableDiffusionXL"):
        load_pipeline(str(folder), GenerationOptions(num_inference_steps=1))


@pytest.mark.parametrize(("changes", "piece"), [
    ({"beta_start": "a"}, "beta_start is 'a'"), ({"beta_start": -5.0}, "describes no DDIMScheduler"),
    ({"beta_end": 5.0}, "levels of noise that are no levels"), ({"num_train_timesteps": 0}, "describes no DDIM"),
    ({"timestep_spacing": "none"}, "timestep_spacing is 'none'"),
])
def test_a_damaged_scheduler_is_refused_in_generation_too(
    changes: dict[str, Any], piece: str, random_sd: Path, tmp_path: Path
) -> None:
    folder = copied(random_sd, tmp_path / "model")
    config(SCHEDULER, **changes)(folder)
    with pytest.raises(ConfigError, match=piece):
        load_pipeline(str(folder), GenerationOptions(num_inference_steps=1))


# --- what is accepted, and equals what the libraries load ---

PARTS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel,
         "text_encoder_2": CLIPTextModelWithProjection}


def equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("part", PARTS)
def test_a_network_is_what_the_library_loads(part: str, random_sdxl: Path) -> None:
    ours = load_network(PARTS[part], Part(random_sdxl / part), dtype=torch.float32)
    theirs = PARTS[part].from_pretrained(random_sdxl / part)
    assert equal(ours, theirs) and not ours.training
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in ours.parameters())
    buffers = dict(theirs.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in ours.named_buffers())
    half = load_network(PARTS[part], Part(random_sdxl / part), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and equal(half, theirs.to(torch.bfloat16))


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_images_are_those_of_diffusers_own_loader(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"random_{name}")
    options = {"prompt": ["a cat", "a dog"], "num_inference_steps": 2, "output_type": "np"}
    theirs, ours = DiffusionPipeline.from_pretrained(folder), load_pipeline(str(folder), GenerationOptions())
    images = [each(**options, generator=torch.Generator().manual_seed(3)).images for each in (ours, theirs)]
    assert (images[0] == images[1]).all()
    assert dict(ours.scheduler.config) == dict(theirs.scheduler.config)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_both_spellings_of_a_text_encoder_load_completely(part: str, random_sdxl: Path, tmp_path: Path) -> None:
    """transformers >= 5.6 saves CLIPTextModel without `text_model.`, older ones with it."""
    folder = copied(random_sdxl / part, tmp_path / part)
    tensors = load_file(folder / "model.safetensors")
    whole = load_network(PARTS[part], Part(folder), dtype=torch.float32)
    for prefix in ("", "text_model."):
        spelt = {name if name == "text_projection.weight" else prefix + name.removeprefix("text_model."): tensor
                 for name, tensor in tensors.items()}
        (folder / "model.safetensors").unlink()
        save_file(spelt, folder / "model.safetensors")
        assert equal(load_network(PARTS[part], Part(folder), dtype=torch.float32), whole)
        theirs, info = PARTS[part].from_pretrained(folder, output_loading_info=True)
        if not info["missing_keys"]:  # what this version of transformers reads, it reads likewise
            assert equal(theirs, whole)


def test_named_harmless_tensors_are_left_out(random_sd: Path, tmp_path: Path) -> None:
    folder = copied(random_sd, tmp_path / "model")
    extra = {"text_model.embeddings.position_ids": torch.arange(16)[None], "logit_scale": torch.tensor(1.0),
             "text_projection.weight": torch.ones(16, 16)}
    before = load_network(CLIPTextModel, Part(folder / "text_encoder"), dtype=torch.float32)
    weights(TEXT, lambda tensors: {**tensors, **extra})(folder)
    assert equal(load_network(CLIPTextModel, Part(folder / "text_encoder"), dtype=torch.float32), before)
    proof_of("sd", folder)
    assert set(KINDS[CLIPTextModel].harmless) == set(loading.HARMLESS)


def test_old_names_of_a_vaes_attention_load(random_sd: Path, tmp_path: Path) -> None:
    """As in the VAE of the first SD1.5 repositories; diffusers renames them as well."""
    folder = copied(random_sd, tmp_path / "model")
    before = load_network(AutoencoderKL, Part(folder / "vae"), dtype=torch.float32)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def spelt(name: str) -> str:
        for new, other in old.items():
            name = name.replace(new, other)
        return name

    weights(VAE, renamed(spelt))(folder)
    assert "encoder.mid_block.attentions.0.query.weight" in load_file(folder / VAE)
    assert equal(load_network(AutoencoderKL, Part(folder / "vae"), dtype=torch.float32), before)
    assert equal(AutoencoderKL.from_pretrained(folder / "vae"), before)


def as_bin(folder: Path) -> None:
    for file, name in ((UNET, "diffusion_pytorch_model"), (VAE, "diffusion_pytorch_model"), (TEXT, "pytorch_model")):
        torch.save(load_file(folder / file), (folder / file).with_name(f"{name}.bin"))
        (folder / file).unlink()


def as_fp16_variant(folder: Path) -> None:
    for file in (UNET, VAE, TEXT):
        tensors = {name: tensor.half() for name, tensor in load_file(folder / file).items()}
        save_file(tensors, (folder / file).with_suffix(".fp16.safetensors"))
        (folder / file).unlink()


def as_shards(folder: Path) -> None:
    for part, kind in PARTS.items():
        if (folder / part).is_dir():
            network = kind.from_pretrained(folder / part)
            for path in (folder / part).iterdir():
                path.unlink()
            network.save_pretrained(folder / part, max_shard_size="20KB")
            assert list((folder / part).glob("*.index.json"))


@pytest.mark.parametrize("layout", [as_bin, as_fp16_variant, as_shards])
def test_other_layouts_of_weights_load(layout: Damage, random_sd: Path, tmp_path: Path) -> None:
    folder = copied(random_sd, tmp_path / "model")
    layout(folder)
    proof_of("sd", folder)
    for part in ("unet", "vae", "text_encoder"):
        loaded, before = (
            load_network(PARTS[part], Part(base / part), dtype=torch.float16) for base in (folder, random_sd)
        )
        assert equal(loaded, before)
    if layout is as_shards:
        piece = sorted((folder / "unet").glob("*.safetensors"))[0]
        piece.unlink()
        with pytest.raises(ConfigError, match=f"{piece.name} is missing"):
            proof_of("sd", folder)


def test_which_weights_are_read_where_there_are_several(random_sd: Path, tmp_path: Path) -> None:
    """Plain safetensors before the fp16 variant before pickles, which are then not even opened."""
    folder = copied(random_sd, tmp_path / "model")
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"garbage")
    (folder / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"garbage")
    proof_of("sd", folder)
    (folder / UNET).unlink()
    with pytest.raises(ConfigError, match="diffusion_pytorch_model.fp16.safetensors is damaged"):
        proof_of("sd", folder)


def test_values_beyond_half_precision_are_named(random_sd: Path, tmp_path: Path) -> None:
    folder = copied(random_sd, tmp_path / "model")
    weights(UNET, one(lambda tensor: tensor + 1e6))(folder)
    load_network(UNet2DConditionModel, Part(folder / "unet"), dtype=torch.float32)
    with pytest.raises(ConfigError, match="has values that are NaN or infinite in float16"):
        load_network(UNet2DConditionModel, Part(folder / "unet"), dtype=torch.float16)


def test_parts_that_nobody_needs_may_be_anything(random_sd: Path, tmp_path: Path) -> None:
    folder = copied(random_sd, tmp_path / "model")
    config("model_index.json", safety_checker=["stable_diffusion", "X"], feature_extractor=["transformers", "Y"],
           image_encoder=["transformers", "Z"], requires_safety_checker=True)(folder)
    proof_of("sd", folder)
    assert load_pipeline(str(folder), GenerationOptions()).safety_checker is None


def test_keys_of_a_moving_average_are_no_setting_of_the_unet(random_sd: Path, tmp_path: Path) -> None:
    folder = copied(random_sd, tmp_path / "model")
    config("unet/config.json", decay=0.9999, optimization_step=37000, upcast_attention=None)(folder)
    proof_of("sd", folder)


# --- true sizes, without weights ---

@pytest.mark.parametrize(("family", "part", "count"), [
    ("sd", "unet", 859_520_964), ("sd", "vae", 83_653_863), ("sd", "text_encoder", 123_060_480),
    ("sdxl", "unet", 2_567_463_684), ("sdxl", "vae", 83_653_863), ("sdxl", "text_encoder", 123_060_480),
    ("sdxl", "text_encoder_2", 694_659_840),
])
def test_the_check_of_names_and_shapes_at_true_size(
    family: str, part: str, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Files are their headers alone: those of the public model pass; without its last tensor it is refused."""
    source = Path(loading.__file__).parent / "published" / family / part
    place = Part(shutil.copytree(source, tmp_path / part))
    kind = PARTS[part]
    headers = {
        name: Header(tuple(tensor.shape), torch.float16, "F16")
        for name, tensor in empty_network(kind, place).state_dict().items()
    }
    stem = KINDS[kind].stems[0]
    (place.folder / f"{stem}.safetensors").touch()
    monkeypatch.setattr(WeightFile, "__init__", lambda self, part, path: setattr(self, "headers", headers))
    monkeypatch.setattr(WeightFile, "tensors", lambda self: iter(()))
    network = prove_network(kind, place)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    last = max(headers)
    del headers[last]
    with pytest.raises(ConfigError, match=f"it lacks 1 of {len(headers) + 1} tensors, the first is "):
        prove_network(kind, place)
