"""DeepSpeed's ZeRO on two processes (gloo) does what one process does, and its checkpoints are everybody's."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from PIL import Image
from safetensors.torch import load_file

from smpo.core.errors import ConfigError, NonFiniteError
from smpo.training.checkpoint import checkpoints
from smpo.training.joining import join_processes
from smpo.training.options import TrainingOptions
from smpo.training.parallel import from_environment
from smpo.training.parallel.partition import Partition, partition_asked
from smpo.training.run import Run
from smpo.training.trainer import forget_precision, train
from tests.ranks import free_port
from tests.training.outcomes import exit_code, metrics_of
from tests.training.test_distributed import in_shell, on_processes
from tests.training.test_sharded import SMPO, assert_same_state, launcher, scaled_norms
from tests.training.test_trajectories import KTO, assert_same_trajectory, weights

MakeRun = Callable[..., Run]
STAGES = pytest.mark.parametrize("stage", [2, 3])


def asked(stage: int, **more: str) -> dict[str, str]:
    """The environment of `accelerate launch --config_file launch/zero2.yaml`, or another stage's, and `more`."""
    return {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage), **more}


def splitting_all(stage: int, *, moments_on: str = "none") -> dict[str, str]:
    """The environment by a DeepSpeed config in which stage 3 splits the smallest weight, too.

    By itself it keeps those below 100,000 numbers whole, which are all that a tiny model has.
    """
    optimization = {
        "stage": stage, "stage3_param_persistence_threshold": 0, "offload_optimizer": {"device": moments_on}
    }
    config = json.dumps({"zero_optimization": optimization})
    return {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": config}


def zero(work: Callable[[], Any], stage: int, *, moments_on: str = "none") -> Callable[[], Any]:
    """`work`, as started so."""

    def started() -> None:
        os.environ.update(splitting_all(stage, moments_on=moments_on))
        work()

    return started


@pytest.mark.slow
@STAGES
def test_two_processes_train_what_one_trains(new_run: MakeRun, stage: int) -> None:
    """Two accumulated pairs on each process against four on one; unequally many passes of inversion; clipping."""
    settings = {**SMPO, "optimizer": {**SMPO["optimizer"], "max_grad_norm": 0.5, "weight_decay": 0.1}}
    one, two = new_run("one", **settings), new_run("two", **settings, gradient_checkpointing=stage == 3)
    train(one)
    assert on_processes(zero(lambda: train(two), stage)) == [0, 0]
    assert_same_trajectory(two, one)
    assert min(line["grad_norm"] for line in metrics_of(one)) > 0.5
    assert_same_state(two, one, "optimizer")


@pytest.mark.slow
@STAGES
def test_lora_with_a_reference_that_inverts_and_state_in_host_memory(new_run: MakeRun, stage: int) -> None:
    """The reference, which inverts, is the policy without adapters; AdamW works on the CPU's copy."""
    settings = {**SMPO, "lora": {"rank": 3, "alpha": 6.0}, "noising": {**SMPO["noising"], "network": "reference"}}
    one, two = new_run("one", **settings), new_run("two", **settings)
    train(one)
    assert on_processes(zero(lambda: train(two), stage, moments_on="cpu")) == [0, 0]
    assert_same_trajectory(two, one)
    assert max(float(tensor.abs().max()) for name, tensor in weights(one).items() if "lora_B" in name) > 1e-4
    results = [load_file(run.lora_folder / "pytorch_lora_weights.safetensors") for run in (two, one)]
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@STAGES
def test_a_reference_point_and_an_inverting_reference_of_its_own(new_run: MakeRun, stage: int) -> None:
    """KTO's point over both processes, of passes ahead; a frozen second UNet, split under stage 3, inverts."""
    settings = {**KTO, "micro_batch_size": 1, "noising": {**SMPO["noising"], "network": "reference"}}
    one, two = new_run("one", **{**settings, "micro_batch_size": 4}), new_run("two", **settings)
    train(one)
    assert on_processes(zero(lambda: train(two), stage)) == [0, 0]
    assert_same_trajectory(two, one, but=("nfe_no_grad",))
    assert max(line["reference_point"] for line in metrics_of(one)) > 1e-5


@pytest.mark.slow
@STAGES
def test_samples_and_the_result_are_those_of_one_process(new_run: MakeRun, stage: int) -> None:
    """The grid and the model folder; under stage 2 they are the moving average's, with a reference that moves."""
    averages = {"ema_decay": 0.9, "reference_ema_decay": 0.5} if stage == 2 else {}
    settings = {**SMPO, **averages, "samples": {"every": 3, "prompts": ["a thing"], "num_inference_steps": 2}}
    one, two = new_run("one", **settings), new_run("two", **settings)
    train(one)
    assert on_processes(zero(lambda: train(two), stage)) == [0, 0]
    assert_same_trajectory(two, one)
    results = [load_file(run.model_folder / "unet" / "diffusion_pytorch_model.safetensors") for run in (two, one)]
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)
    drawn = [np.asarray(Image.open(run.folder / "samples" / "step-00000003.png"), dtype=int) for run in (two, one)]
    assert np.abs(drawn[0] - drawn[1]).max() <= 3  # of 255, after two steps of a random network


@pytest.mark.slow
@STAGES
def test_policy_and_reference_share_their_precision(new_run: MakeRun, tmp_path: Path, stage: int) -> None:
    """bf16 (METHODS D37), with norms that it cannot hold: policy and reference differ in no bit at first."""
    start = scaled_norms(new_run("any").family, tmp_path / "unet")
    settings = {**SMPO, "mixed_precision": "bf16", "steps": 2, "init_weights": start}
    one, two = new_run("one", **settings), new_run("two", **settings)
    assert exit_code(lambda: (forget_precision(), train(one))) == 0
    assert on_processes(zero(lambda: train(two), stage)) == [0, 0]
    first, second = metrics_of(two)
    assert first["error_delta_w"] == first["error_delta_l"] == 0 != second["error_delta_w"]
    assert first["error_w"] == pytest.approx(metrics_of(one)[0]["error_w"], rel=1e-6)


@pytest.mark.slow
@STAGES
def test_a_gradient_that_is_not_finite_stops_both_before_the_step(new_run: MakeRun, stage: int) -> None:
    """A learning rate that makes the second step's loss overflow; the last checkpoint stands."""
    run = new_run("run", **{**SMPO, "optimizer": {"lr": 1e18}})

    def refused() -> None:
        with pytest.raises(NonFiniteError, match="not finite at step 2 .*nothing was stepped"):
            train(run)

    assert on_processes(zero(refused, stage)) == [0, 0]
    assert [path.name for path in checkpoints(run.checkpoints)] == ["step-00000001"]


@pytest.mark.slow
@STAGES
def test_accelerate_launches_the_shipped_configs(
    stage: int, new_run: MakeRun, sd_artefacts: Path, random_sd: Path
) -> None:
    one, two = new_run("one", **SMPO), new_run("two", **SMPO)
    train(one)
    assert in_shell(launcher(f"zero{stage}", free_port()), sd_artefacts, two, random_sd, SMPO) == 0
    assert_same_trajectory(two, one)


@pytest.mark.slow
@STAGES
def test_in_the_mode_that_accelerate_enters_on_gpus(
    new_run: MakeRun, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    """Forced on CPUs: it knows of DeepSpeed then, and tells transformers, which would load models in parts."""
    one, two = new_run("one", **SMPO), new_run("two", **SMPO)
    train(one)

    def joined(run: Run) -> Accelerator:
        accelerator, plugin = join_processes(run), DeepSpeedPlugin()
        plugin.select(_from_accelerator_state=True)
        AcceleratorState._shared_state["deepspeed_plugins"] = plugin
        for state in (AcceleratorState, PartialState):
            state._shared_state["distributed_type"] = DistributedType.DEEPSPEED
        assert accelerator.distributed_type == DistributedType.DEEPSPEED
        return accelerator

    monkeypatch.setattr("smpo.training.trainer.join_processes", joined)
    assert on_processes(zero(lambda: train(two), stage)) == [0, 0]
    assert_same_trajectory(two, one)


@pytest.mark.parametrize(("environment", "options", "message"), [
    (asked(1), {}, "zero_stage must be 2 or 3, got 1; see launch/zero2.yaml, or use DDP"),
    (asked(3, ACCELERATE_DEEPSPEED_ZERO3_INIT="true"), {}, "zero3_init_flag is not supported; set it to false"),
    (asked(3, ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE="cpu"), {}, "offload_param_device must be none, got cpu"),
    (asked(2, ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE="nvme"), {}, "must be none or cpu, got nvme"),
    (asked(2), {"mixed_precision": "fp16"}, "mixed_precision=fp16 is not supported by ZeRO runs of stage 2; leave it"),
    (asked(2), {"compile": True}, "training.compile=true is not supported by ZeRO runs of stage 2"),
    (asked(2), {"channels_last": True}, "training.channels_last=true is not supported by ZeRO runs"),
    (asked(2), {"optimizer": {"name": "adafactor", "lr": 1.0}}, "optimizer.name=adafactor is not supported by ZeRO"),
    (asked(3), {"ema_decay": 0.9}, "training.ema_decay=0.9 is not supported by ZeRO runs of stage 3"),
    (asked(3), {"reference_ema_decay": 0.9}, "training.reference_ema_decay=0.9 is not supported by ZeRO runs"),
])
def test_what_training_does_not_do_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict, options: dict, message: str
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message) as error:
        from_environment(TrainingOptions(**{"steps": 1, "batch_size": 2, "optimizer": {"lr": 1.0}, **options}))
    assert "\n" not in str(error.value)


def test_without_the_package_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in asked(2).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr("smpo.training.parallel.partition.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"package deepspeed, not installed; pip install 'smpo\[deepspeed\]'"):
        from_environment(TrainingOptions(steps=1, batch_size=2, optimizer={"lr": 1.0}))


def test_the_recipe_decides_all_but_how_to_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision, clipping and accumulation are the recipe's."""
    options = TrainingOptions(
        steps=1, batch_size=12, micro_batch_size=2, mixed_precision="bf16", optimizer={"lr": 1.0, "max_grad_norm": 0.3}
    )
    assert partition_asked(options) is None
    more = {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu", "ACCELERATE_GRADIENT_CLIPPING": "7.0"}
    for variable, value in {**asked(3, **more), "WORLD_SIZE": "3", "RANK": "0"}.items():
        monkeypatch.setenv(variable, value)
    found = partition_asked(options)
    assert isinstance(found, Partition) and (found.stage, found.bf16) == (3, True)
    expected = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2, "gradient_clipping": 0.3}
    assert {key: found.config[key] for key in expected} == expected
    assert found.config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert found.config["torch_autocast"] == {
        "enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []
    }
