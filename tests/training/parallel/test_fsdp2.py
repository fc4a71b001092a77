"""FSDP2 on two processes (gloo) does what one process does, and its checkpoints are everybody's."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from smpo.training.checkpoint import checkpoints, load_checkpoint
from smpo.training.invert import cache_inversions, with_cached_inversions
from smpo.training.joining import join_processes
from smpo.training.options import OptimizerOptions
from smpo.training.parallel.fsdp2 import FSDP2, FSDP2Options, blocks_of, full_tensor, shard_tensor_like
from smpo.training.run import Run
from smpo.training.trainer import forget_precision, train
from tests.ranks import free_port
from tests.tiny_pipelines import unet
from tests.training.outcomes import die, exit_code, metrics_of
from tests.training.parallel.processes import in_shell, on_processes
from tests.training.runs import make_run
from tests.training.test_trajectories import GENTLE, KTO, assert_same_trajectory, weights

MakeRun = Callable[..., Run]
SMPO = {**GENTLE, "noising": {"name": "renoise", "inversion_steps": 5, "grid": "fixed_stride"}, "micro_batch_size": 1}
"""Inversions of one to five steps: the two processes make unequally many passes."""
FSDP2_ENV = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
OFFLOAD = {"FSDP_OFFLOAD_PARAMS": "true"}
LAUNCH = Path(__file__).parents[3] / "launch"


def sharded(work: Callable[[], Any], **fsdp: str) -> Callable[[], Any]:
    """`work` as `accelerate launch --config_file launch/fsdp2.yaml` starts it, but for the variables in `fsdp`."""

    def started() -> None:
        os.environ.update({**FSDP2_ENV, **fsdp})
        work()

    return started


def assert_same_state(run: Run, other: Run, *stems: str) -> None:
    """Equal tensors in these files of the last checkpoints."""
    states = [load_checkpoint(one.checkpoints).tensors for one in (run, other)]
    for stem in stems:
        torch.testing.assert_close(*(state[stem] for state in states), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "reshard", "offload"), [
    ("adamw", "true", "false"), ("adafactor", "false", "false"),
    ("adamw", "true", "true"), ("adafactor", "false", "true"),
])
def test_two_sharded_processes_train_what_one_trains(
    new_run: MakeRun, optimizer: str, reshard: str, offload: str
) -> None:
    """Two accumulated pairs on each process against four on one, weights kept from forward to backward or not.

    The sharded blocks are gathered a third time where their activations are computed anew.
    """
    settings = {**SMPO, "optimizer": {**GENTLE["optimizer"], "name": optimizer}}
    one, two = new_run("one", **settings), new_run("two", **settings, gradient_checkpointing=reshard == "true")
    train(one)
    asked_for = {"FSDP_RESHARD_AFTER_FORWARD": reshard, "FSDP_OFFLOAD_PARAMS": offload}
    assert on_processes(sharded(lambda: train(two), **asked_for)) == [0, 0]
    assert_same_trajectory(two, one)
    for run in (one, two):
        assert len({line["nfe_no_grad"] for line in metrics_of(run)}) > 1  # inversions of other lengths


@pytest.mark.slow
def test_the_reference_point_goes_over_all_sharded_processes(new_run: MakeRun) -> None:
    """KTO's, of two accumulated images on each process, against four images in one pass."""
    one, two = new_run("one", **{**KTO, "micro_batch_size": 4}), new_run("two", **{**KTO, "micro_batch_size": 1})
    train(one)
    assert on_processes(sharded(lambda: train(two))) == [0, 0]
    assert_same_trajectory(two, one, but=("nfe_no_grad",))
    assert max(line["reference_point"] for line in metrics_of(one)) > 1e-5


def test_blocks_are_gathered_by_the_names_that_the_model_gives() -> None:
    """A UNet's up blocks are named, too, and contain its residual and transformer blocks; SD3 names one class."""
    network = unet()
    expected = [module for module in network.modules() if isinstance(module, BasicTransformerBlock | ResnetBlock2D)]
    assert blocks_of(network) == expected and len(expected) > 10
    sd3 = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=8, pooled_projection_dim=8, out_channels=4, pos_embed_max_size=4,
    )
    assert blocks_of(sd3) == list(sd3.transformer_blocks)
    assert blocks_of(torch.nn.Linear(1, 1)) == []


@pytest.mark.slow
def test_one_process_may_offload(new_run: MakeRun) -> None:
    """No launcher, averages, a reference that inverts; the run is resumed without FSDP2."""
    settings = {**SMPO, "steps": 4, "ema_decay": 0.9, "reference_ema_decay": 0.5,
                "optimizer": {**GENTLE["optimizer"], "fused": True},
                "noising": {**SMPO["noising"], "network": "reference"}}
    straight, offloaded = new_run("straight", **settings), new_run("offloaded", **settings)
    train(straight)
    for step in (2, 4):  # the second one resumes
        stop = lambda metrics, step=step: die() if metrics["step"] == step else None  # noqa: E731
        assert exit_code(sharded(lambda stop=stop: train(offloaded, report=stop), **OFFLOAD)) == -9
    assert list(offloaded.checkpoints.glob("step-00000003/policy-00001-of-00001.safetensors"))  # FSDP2 wrote it
    assert train(offloaded).resumed_from == 3
    assert_same_trajectory(offloaded, straight)
    assert_same_state(offloaded, straight, "ema", "reference", "optimizer")


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["false", "true"])
def test_averages_samples_and_the_result_are_those_of_one_process(new_run: MakeRun, offload: str) -> None:
    """The moving average of the weights, a reference that moves and inverts, the grid, and the model folder."""
    settings = {
        **SMPO, "ema_decay": 0.9, "reference_ema_decay": 0.5, "noising": {**SMPO["noising"], "network": "reference"},
        "samples": {"every": 3, "prompts": ["a thing"], "num_inference_steps": 2},
    }
    one, two = new_run("one", **settings), new_run("two", **settings)
    train(one)
    assert on_processes(sharded(lambda: train(two), FSDP_OFFLOAD_PARAMS=offload)) == [0, 0]
    assert_same_trajectory(two, one)
    assert_same_state(two, one, "ema", "reference", "optimizer")
    rows = [load_file(checkpoints(two.checkpoints)[0] / f"ema-0000{n}-of-00002.safetensors") for n in (1, 2)]
    sizes = [sum(tensor.numel() for tensor in shares.values()) for shares in rows]
    assert max(sizes) < 0.6 * sum(sizes)  # each process wrote what it keeps
    results = [load_file(run.model_folder / "unet" / "diffusion_pytorch_model.safetensors") for run in (two, one)]
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)
    drawn = [np.asarray(Image.open(run.folder / "samples" / "step-00000003.png"), dtype=int) for run in (two, one)]
    assert np.abs(drawn[0] - drawn[1]).max() <= 1


@pytest.mark.slow
def test_adapters_train_alike_when_base_and_adapters_are_sharded(new_run: MakeRun) -> None:
    """LoRA: the reference is the sharded UNet with its adapters off; the result is fused on the main process."""
    settings = {**SMPO, "lora": {"rank": 3, "alpha": 6.0}}
    one, two = new_run("one", **settings), new_run("two", **settings)
    train(one)
    assert on_processes(sharded(lambda: train(two))) == [0, 0]
    assert_same_trajectory(two, one)
    assert max(float(tensor.abs().max()) for name, tensor in weights(one).items() if "lora_B" in name) > 1e-4
    for folder, file in (("model_folder", "unet/diffusion_pytorch_model.safetensors"),
                         ("lora_folder", "pytorch_lora_weights.safetensors")):
        results = [load_file(getattr(run, folder) / file) for run in (two, one)]
        torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_policy_and_reference_share_their_precision(sdxl_artefacts: Path, random_sdxl: Path, tmp_path: Path) -> None:
    """bf16 (METHODS D37): before the first step SDXL's policy and reference differ in no bit."""
    settings = {**SMPO, "mixed_precision": "bf16", "steps": 2}
    one, two = (make_run(sdxl_artefacts, tmp_path / name, random_sdxl, family="sdxl", **settings)
                for name in ("one", "two"))
    assert exit_code(lambda: (forget_precision(), train(one))) == 0
    assert on_processes(sharded(lambda: train(two))) == [0, 0]
    for run in (one, two):
        first, second = metrics_of(run)
        assert first["error_delta_w"] == first["error_delta_l"] == 0 and first["loss"] == pytest.approx(math.log(2))
        assert second["error_delta_w"] != 0
    assert metrics_of(two)[0]["error_w"] == pytest.approx(metrics_of(one)[0]["error_w"], rel=1e-6)


@pytest.mark.slow
def test_a_sharded_policy_shares_the_precision_of_stored_errors(new_run: MakeRun, tmp_path: Path) -> None:
    """The reference's errors were taken with whole weights in bf16: before the first step the policy's are the same."""
    settings = {**SMPO, "noising": {**SMPO["noising"], "network": "reference"}, "mixed_precision": "bf16", "steps": 2}
    start = scaled_norms(new_run("run").family, tmp_path / "unet")
    run = new_run("run", **settings, cached_inversion_epochs=1, init_weights=start)
    assert exit_code(lambda: (forget_precision(), cache_inversions(run, tmp_path / "store"))) == 0
    assert on_processes(sharded(lambda: train(with_cached_inversions(run, tmp_path / "store")))) == [0, 0]
    first, second = metrics_of(run)
    assert first["error_delta_w"] == first["error_delta_l"] == 0 != second["error_delta_w"]


def scaled_norms(family: Any, folder: Path) -> str:
    """A folder with the family's UNet whose norms have weights that bf16 cannot hold, as trained ones have."""
    unet = family.load_denoiser()
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "norm" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    unet.save_pretrained(folder)
    return str(folder)


def passes(unet: UNet2DConditionModel, size: float = 1023.0) -> torch.Tensor:
    """SDXL's prediction for a picture of `size` px, which bf16 cannot hold: it would become 1024."""
    draw = torch.Generator().manual_seed(0)
    x, hidden, pooled = (torch.randn(*shape, generator=draw) for shape in ((2, 4, 8, 8), (2, 16, 32), (2, 16)))
    added = {"text_embeds": pooled, "time_ids": torch.full((2, 6), size)}
    with torch.autocast("cpu", torch.bfloat16):
        return unet(x, torch.tensor([3, 700]), encoder_hidden_states=hidden, added_cond_kwargs=added).sample.float()


class Messages(TorchDispatchMode):
    """Counts what goes between the processes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += operation.namespace == "c10d"
        return operation(*args, **(kwargs or {}))


def messages(work: Callable[[], Any]) -> int:
    """How often weights are gathered and gradients averaged while `work` is done."""
    with Messages() as counted:
        work()
    return counted.count


def notes(unet: Any) -> list[Any]:
    """What FSDP2 has noted for a backward to come: one entry a group and pass."""
    return unet._get_fsdp_state()._comm_ctx.post_forward_order


@pytest.mark.slow
def test_any_number_of_passes_in_one_gathering(random_sdxl: Path, tmp_path: Path) -> None:
    """What the trainer builds on, from within: messages counted, shares measured, predictions compared bit for bit."""

    def checked() -> None:
        accelerator = Accelerator(mixed_precision="bf16")
        plain, split = (UNet2DConditionModel.from_pretrained(random_sdxl, subfolder="unet") for _ in range(2))
        assert not torch.equal(passes(plain), passes(plain, 1024.0))
        parallel = FSDP2(accelerator, FSDP2Options(param_dtype=torch.bfloat16))
        parallel.place_policy(split, OptimizerOptions(lr=1.0))
        groups = 1 + len(blocks_of(plain))
        mine = sum(parameter.to_local().numel() for parameter in split.parameters())
        assert mine < 0.6 * sum(parameter.numel() for parameter in plain.parameters())
        with torch.no_grad():
            assert messages(lambda: passes(split)) == groups
            for number in (0, 3 * accelerator.process_index):
                with parallel.no_backward(gathered=split):
                    assert messages(lambda number=number: [passes(split) for _ in range(number)]) == 0
                assert all(isinstance(parameter, DTensor) for parameter in split.parameters())
            with parallel.no_backward(split, gathered=None):
                assert torch.equal(passes(split), passes(plain))
                assert len(notes(split)) == groups
            assert not notes(split)
        # forward, backward, averaging
        assert messages(lambda: passes(split).square().mean().backward()) == 3 * groups
        passes(plain).square().mean().backward()
        split.enable_gradient_checkpointing()
        passes(split.train()).square().mean().backward()
        for parameter in split.parameters():
            parameter.grad /= 2  # the same gradient once more
        for ours, theirs in zip(split.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(full_tensor(ours.grad), theirs.grad, atol=1e-3, rtol=2e-2)
            again = shard_tensor_like(theirs.detach(), ours)
            assert isinstance(again, DTensor) and torch.equal(again.to_local(), ours.to_local())
            assert again.to_local().untyped_storage().nbytes() <= again.to_local().nbytes
        (tmp_path / f"{accelerator.process_index}").touch()

    assert on_processes(checked) == [0, 0]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_in_the_mode_that_accelerate_enters_on_gpus(new_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced on CPUs: it knows of FSDP then, and has ways of its own to clip and to gather."""
    one, two = new_run("one", **SMPO), new_run("two", **SMPO)
    train(one)

    def joined(run: Run) -> Accelerator:
        accelerator = join_processes(run)
        AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin()
        for state in (AcceleratorState, PartialState):
            state._shared_state["distributed_type"] = DistributedType.FSDP
        assert accelerator.is_fsdp2
        return accelerator

    monkeypatch.setattr("smpo.training.trainer.join_processes", joined)
    assert on_processes(sharded(lambda: train(two))) == [0, 0]
    assert_same_trajectory(two, one)


def launcher(name: str, port: int) -> list[str]:
    """The command that starts two processes by a config file that is shipped; a module follows."""
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCH / f"{name}.yaml"),
            "--num_processes", "2", "--main_process_port", str(port), "-m"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2", "fsdp2-offload"])
def test_accelerate_launches_the_shipped_configs(
    name: str, new_run: MakeRun, sd_artefacts: Path, random_sd: Path
) -> None:
    """From a shell; without a GPU the same files start processes that talk over gloo."""
    one, two = new_run("one", **SMPO), new_run("two", **SMPO)
    train(one)
    assert in_shell(launcher(name, free_port()), sd_artefacts, two, random_sd, SMPO) == 0
    assert_same_trajectory(two, one)
