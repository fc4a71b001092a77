"""LoRA: one copy of the weights that is policy and reference, and files that other programs read as we mean them."""

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from smpo.core.errors import ConfigError
from smpo.models.kohya import original_module
from smpo.training.checkpoint import load_checkpoint
from smpo.training.learners.learner import Networks
from smpo.training.options import LoraOptions
from smpo.training.policy.lora import AdaptersOff, add_adapters, trained_parameters
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.training.outcomes import exit_code, metrics_of, outcome
from tests.training.parallel.processes import on_processes
from tests.training.runs import make_run
from tests.training.steps import Setup, batch_of, stepped
from tests.training.test_resume import train_and_die
from tests.training.test_trajectories import GENTLE, assert_same_trajectory

FLOAT32 = partial(torch.autocast, "cpu", enabled=False)
MakeRun = Callable[..., Run]
ATTENTION = LoraOptions().targets
EVERYWHERE = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv_shortcut", "conv")
LORA = {"rank": 3, "alpha": 6.0, "targets": EVERYWHERE}  # alpha / rank = 2, so that a lost factor shows
TRAINED = {"lora": LORA, "steps": 3, "optimizer": {"lr": 1e-2}, "noising": {"name": "forward"}}
SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": (320, 640, 1280, 1280)}
SDXL = {
    "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
    "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"), "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def with_adapters(run: Run, **changes: Any) -> UNet2DConditionModel:
    """The run's UNet with adapters that have left their start."""
    unet = run.family.load_denoiser(run.init_weights)
    add_adapters(unet, LoraOptions(**{**LORA, **changes}), seed=0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(unet):
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    return unet


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of either family with adapters on every kind of module."""
    artefacts, model = (request.getfixturevalue(name.format(request.param)) for name in ("{}_artefacts", "random_{}"))
    folder = tmp_path_factory.mktemp("lora") / "run"
    run = make_run(artefacts, folder, model, family=request.param, micro_batch_size=4, **TRAINED)
    train(run)
    return run


def fused(run: Run) -> dict[str, Tensor]:
    """The weights of the result's UNet."""
    return load_file(run.model_folder / "unet" / "diffusion_pytorch_model.safetensors")


def comfyui_file(run: Run) -> Path:
    return run.lora_folder / f"{run.name}_comfyui.safetensors"


def image(pipeline: DiffusionPipeline) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return pipeline("a thing", num_inference_steps=2, generator=draw, output_type="pt").images[0]


def test_the_reference_is_a_separate_frozen_copy_bit_for_bit(new_run: MakeRun, other_unet: str) -> None:
    """While the policy is in train mode with dropout of its own and of its adapters; the policy is left as it was."""
    run = new_run("run", init_weights=other_unet)
    unet, copy = with_adapters(run, dropout=0.5).train(), run.family.load_denoiser(other_unet).eval()
    batch = batch_of(run, range(2))
    given, x_t, timesteps = batch.conditioning, batch.x_0.flatten(0, 1), batch.timesteps.repeat(2)
    reference = AdaptersOff(unet)
    with torch.no_grad():
        answers = [run.family.predict(one, x_t, timesteps, given) for one in (reference, copy)]
        assert torch.equal(*answers)
        assert unet.training and all(module.training for module in unet.modules())
        policy = run.family.predict(unet.eval(), x_t, timesteps, given)
    assert not torch.allclose(policy, answers[0], atol=1e-3)
    assert trained_parameters(unet) and all("lora" in n for n, p in unet.named_parameters() if p.requires_grad)


def test_the_policy_comes_back_when_the_reference_fails(new_run: MakeRun) -> None:
    unet = with_adapters(new_run("run")).train()
    with pytest.raises(TypeError):
        AdaptersOff(unet)()
    assert unet.training and trained_parameters(unet)


@pytest.mark.parametrize("noising", [{"name": "forward"}, {"name": "renoise", "inversion_steps": 2}])
@pytest.mark.parametrize("init", ["gaussian", "kaiming"])
def test_at_step_0_the_loss_is_exactly_ln_2(new_run: MakeRun, noising: dict, init: str) -> None:
    run = new_run("run", noising=noising)
    unet = run.family.load_denoiser()
    add_adapters(unet, LoraOptions(**{**LORA, "init": init}), seed=0)
    setup = Setup(run.learner, Networks(unet, unet, AdaptersOff(unet), FLOAT32))
    output = stepped(batch_of(run, range(4)), setup)
    assert torch.equal(output.errors.policy_w, output.errors.reference_w)
    assert torch.equal(output.errors.policy_l, output.errors.reference_l)
    assert output.loss.tolist() == [torch.tensor(math.log(2)).item()] * 4


def test_the_step_is_that_of_two_separate_copies(new_run: MakeRun) -> None:
    """Loss, and the gradient of every adapter: nothing flows through the reference."""
    run = new_run("run", noising={"name": "renoise", "inversion_steps": 2, "network": "reference"})
    one, two, copy = with_adapters(run), with_adapters(run), run.family.load_denoiser().eval()
    batch, gradients = batch_of(run, range(4)), []
    for unet, reference in ((one, AdaptersOff(one)), (two, copy)):
        setup = Setup(run.learner, Networks(unet, unet, reference, FLOAT32))
        loss = stepped(batch, setup).loss.mean()
        loss.backward()
        gradients.append([loss.detach(), *(parameter.grad for parameter in trained_parameters(unet))])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients, strict=True))


def test_only_adapters_are_trained_saved_and_optimised(trained: Run) -> None:
    base = trained.family.load_denoiser()
    state = load_checkpoint(trained.checkpoints).tensors
    assert all(re.search(r"\.lora_[AB]\.smpo\.weight$", name) for name in state["policy"])
    assert len(state["optimizer"]) == 3 * len(state["policy"])  # AdamW's two moments and its count
    weights, targets = fused(trained), tuple(f".{target}.weight" for target in EVERYWHERE)
    for name, tensor in base.state_dict().items():
        assert torch.equal(weights[name], tensor) != name.endswith(targets), name


def test_diffusers_loads_the_adapters_on_the_base(trained: Run) -> None:
    """1e-5 of a pixel's range: B A is added to the outputs, and not, as in the fused weights, to the weights."""
    pipeline = DiffusionPipeline.from_pretrained(trained.family.source)
    bare, whole = image(pipeline), image(DiffusionPipeline.from_pretrained(trained.model_folder))
    pipeline.load_lora_weights(trained.lora_folder, weight_name="pytorch_lora_weights.safetensors")
    torch.testing.assert_close(image(pipeline), whole, atol=1e-5, rtol=0)
    assert (bare - whole).abs().max() > 1e-3


def test_a_reader_of_kohyas_layout_gets_the_fused_weights(trained: Run) -> None:
    """W' = W + alpha / rank up @ down for each module named by a key, over the weights as ComfyUI holds them.

    SD1.5's are named by diffusers' modules, SDXL's by the original ones, which diffusers' converter brings back.
    """
    unet, stored = trained.family.load_denoiser(), load_file(comfyui_file(trained))
    xl = trained.family.kohya_version.startswith("sdxl")
    weights = original(unet) if xl else dict(unet.state_dict())
    for name in [name for name in weights if name.endswith(".weight")]:
        key = "lora_unet_" + name.removesuffix(".weight").removeprefix("model.diffusion_model.").replace(".", "_")
        if f"{key}.lora_up.weight" in stored:
            up, down, alpha = (stored.pop(f"{key}.{part}") for part in ("lora_up.weight", "lora_down.weight", "alpha"))
            change = up.flatten(1) @ down.flatten(1)
            weights[name] = weights[name] + alpha / len(down) * change.reshape(weights[name].shape)
    assert not stored, "keys that a reader does not know"
    found = convert_ldm_unet_checkpoint(weights, dict(unet.config)) if xl else weights
    torch.testing.assert_close(found, fused(trained), atol=1e-6, rtol=1e-5)


def original(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The UNet's weights under the names of an original checkpoint."""
    split = ((*name.rpartition("."), tensor) for name, tensor in unet.state_dict().items())
    return {f"model.diffusion_model.{original_module(module, unet.config)}.{leaf}": t for module, _, leaf, t in split}


def test_the_comfyui_file_says_which_models_it_fits(trained: Run) -> None:
    with safe_open(comfyui_file(trained), "pt") as file:
        about = file.metadata()
    family = {"StableDiffusion": "sd_v1", "StableDiffusionXL": "sdxl_base_v1-0"}[type(trained.family).__name__]
    assert about == {
        "ss_network_module": "networks.lora", "ss_network_dim": "3", "ss_network_alpha": "6.0", "ss_v2": "False",
        "ss_output_name": "test", "ss_base_model_version": family,
    }


@pytest.mark.parametrize(("shape", "count"), [
    (SD15, 1_594_368), pytest.param(SDXL, 11_612_160, marks=pytest.mark.slow),
])
def test_names_and_numbers_of_adapters_at_full_size(shape: dict, count: int) -> None:
    """diffusers' own converter finds every original name; rank 8 counts 8 (in + out) a module."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**shape)
    names = list(unet.state_dict())
    numbered = {name: torch.tensor(number) for name, number in zip(original(unet), range(len(names)), strict=True)}
    converted = convert_ldm_unet_checkpoint(numbered, dict(unet.config))
    assert {name: int(number) for name, number in converted.items()} == {n: i for i, n in enumerate(names)}
    by_hand = sum(8 * sum(p.shape) for n, p in unet.named_parameters() if re.search(r"to_(q|k|v|out\.0)\.weight$", n))
    add_adapters(unet, LoraOptions(rank=8), seed=0)
    assert sum(parameter.numel() for parameter in trained_parameters(unet)) == by_hand == count


def test_dora_is_loaded_by_diffusers_and_has_no_file_for_comfyui(new_run: MakeRun) -> None:
    run = new_run("run", **{**TRAINED, "lora": {**LORA, "targets": ATTENTION, "dora": True}})
    with pytest.warns(UserWarning, match="No file for ComfyUI and A1111 is written"):
        train(run)
    assert metrics_of(run)[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert sorted(path.name for path in run.lora_folder.iterdir()) == [
        "README.md", "pytorch_lora_weights.safetensors"
    ]
    card = (run.lora_folder / "README.md").read_text()
    assert "No file for ComfyUI" in card and '`cross_attention_kwargs={"scale": 0}` does not give the base back' in card
    pipeline = DiffusionPipeline.from_pretrained(run.family.source)
    pipeline.load_lora_weights(run.lora_folder)
    torch.testing.assert_close(image(pipeline), image(DiffusionPipeline.from_pretrained(run.model_folder)),
                               atol=1e-5, rtol=0)


def test_killed_equals_never_killed(new_run: MakeRun) -> None:
    """With dropout in the adapters and a moving average of them."""
    settings = {"lora": {"rank": 2, "dropout": 0.3}, "ema_decay": 0.9, "steps": 4}
    straight, killed = (new_run(name, **settings) for name in ("straight", "killed"))
    train(straight)
    assert exit_code(lambda: train_and_die(killed, after_step=3)) == -9
    assert train(killed).resumed_from == 2
    assert outcome(killed) == outcome(straight)
    ours, theirs = (load_file(comfyui_file(run)) for run in (killed, straight))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("changes", [
    {"micro_batch_size": 1}, pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.slow),
])
def test_micro_batches_and_gradient_checkpointing_change_nothing(new_run: MakeRun, changes: dict) -> None:
    settings = {**GENTLE, "lora": LORA, "micro_batch_size": 4, "steps": 2}
    straight, changed = new_run("straight", **settings), new_run("changed", **{**settings, **changes})
    train(straight)
    train(changed)
    assert_same_trajectory(changed, straight)


@pytest.mark.slow
@pytest.mark.parametrize("noising", [{"name": "forward"}, {"name": "renoise", "inversion_steps": 2}])
def test_two_processes_train_what_one_trains(new_run: MakeRun, noising: dict) -> None:
    settings = {"lora": LORA, "noising": noising, **GENTLE, "micro_batch_size": 1}
    one, two = new_run("one", **settings), new_run("two", **settings)
    train(one)
    assert on_processes(lambda: train(two)) == [0, 0]
    assert_same_trajectory(two, one)


def test_a_seed_draws_the_adapters_and_nothing_else(new_run: MakeRun) -> None:
    state, run = torch.get_rng_state(), new_run("run")
    drawn = []
    for seed in (0, 0, 1):
        unet = run.family.load_denoiser()
        add_adapters(unet, LoraOptions(), seed=seed)
        drawn.append(torch.cat([parameter.flatten() for parameter in trained_parameters(unet)]))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(state, torch.get_rng_state())


def test_what_cannot_be_one_copy_is_refused(new_run: MakeRun, other_unet: str) -> None:
    with pytest.raises(ConfigError, match=r"reference_weights=\S+: leave reference_weights out, or set"):
        train(new_run("run", lora=LORA, reference_weights=other_unet))
    train(new_run("same", lora={"rank": 1}, init_weights=other_unet, reference_weights=other_unet, steps=1))
    with pytest.raises(ValueError, match="reference_ema_decay=0.9 moves a reference"):
        new_run("run", lora=LORA, reference_ema_decay=0.9)


@pytest.mark.parametrize(("target", "complaint"), [
    ("to_qq", "unknown module of training.lora.targets 'to_qq'; known: .* Did you mean 'to_q'?"),
    ("norm1", "unknown module of training.lora.targets 'norm1'"),
    ("q", "unknown module of training.lora.targets 'q'"),
])
def test_a_target_that_is_no_linear_or_convolutional_module_is_refused(
    new_run: MakeRun, target: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        train(new_run("run", lora={"targets": ["to_k", target]}))
