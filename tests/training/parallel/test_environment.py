"""What the launcher's environment asks for, and what training refuses of it."""

import pytest
import torch

from smpo.core.errors import ConfigError
from smpo.training.options import TrainingOptions
from smpo.training.parallel import Replicated, from_environment
from smpo.training.parallel.environment import fsdp2_options
from smpo.training.parallel.fsdp2 import FSDP2Options
from tests.training.parallel.test_fsdp2 import FSDP2_ENV


@pytest.mark.parametrize(("environment", "options", "message"), [
    ({**FSDP2_ENV, "FSDP_VERSION": "1"}, {}, "fsdp_version must be 2, got 1; see launch/fsdp2.yaml"),
    ({**FSDP2_ENV, "FSDP_OFFLOAD_PARAMS": "1"}, {}, "fsdp_offload_params must be true or false, got 1; see launch/"),
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "DeepSpeed is not supported; .* launch/fsdp2-offload.yaml"),
    ({**FSDP2_ENV, "FSDP_CPU_RAM_EFFICIENT_LOADING": "True"}, {}, "fsdp_cpu_ram_efficient_loading is not supported"),
    ({**FSDP2_ENV, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, {},
     "not supported; .*training.gradient_checkpointing=true"),
    ({**FSDP2_ENV, "FSDP_RESHARD_AFTER_FORWARD": "FULL_SHARD"}, {}, "must be true or false, got full_shard"),
    (FSDP2_ENV, {"mixed_precision": "fp16"}, "mixed_precision=fp16 is not supported by FSDP2 runs; set bf16 or no"),
    (FSDP2_ENV, {"compile": True},
     "training.compile=true was never tried in FSDP2 runs, which refuse it; leave it out"),
    (FSDP2_ENV, {"channels_last": True},
     "training.channels_last=true was never tried in FSDP2 runs"),
    (FSDP2_ENV, {"optimizer": {"name": "adamw_8bit", "lr": 1.0}},
     "optimizer.name=adamw_8bit was never tried in FSDP2"),
])
def test_what_training_does_not_do_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict, options: dict, message: str
) -> None:
    for variable, value in {**environment, "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message) as error:
        from_environment(TrainingOptions(**{"steps": 1, "batch_size": 2, "optimizer": {"lr": 1.0}, **options}))
    assert "\n" not in str(error.value)


def test_one_process_and_ddp_split_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainingOptions(steps=1, batch_size=2, optimizer={"lr": 1.0})
    assert fsdp2_options(options) is None and from_environment(options) is Replicated
    for variable, value in {**FSDP2_ENV, "WORLD_SIZE": "1", "RANK": "0"}.items():
        monkeypatch.setenv(variable, value)
    assert fsdp2_options(options) is None
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    assert fsdp2_options(options) == FSDP2Options(cpu_offload=True)
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "false")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert fsdp2_options(options) == FSDP2Options()
    half = options.model_copy(update={"mixed_precision": "bf16"})
    assert fsdp2_options(half) == FSDP2Options(param_dtype=torch.bfloat16)
    cached = half.model_copy(update={"cached_inversion_epochs": 1})
    assert fsdp2_options(cached) == FSDP2Options()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    assert fsdp2_options(options) is None
