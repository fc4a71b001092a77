"""Which way of training on several processes the launcher asks for, by its environment variables.

`accelerate launch --config_file launch/NAME.yaml` sets them; under torchrun or Slurm they are set by hand
(docs/distributed.md).
"""

import os
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch.distributed.fsdp import FSDPModule

from smpo.core.errors import ConfigError
from smpo.core.processes import is_set, this_process
from smpo.training.options import TrainingOptions
from smpo.training.parallel.fsdp2 import FSDP2, FSDP2Options
from smpo.training.parallel.replicated import Replicated

FSDP2_OPTIMIZERS = ("adamw", "adafactor")
"""Optimizers that were tested under FSDP2."""
NEEDS_WHOLE_MATRICES = "adafactor"
"""Its second moments are means over a matrix's rows and columns, which a process's own rows do not give."""
UNSUPPORTED = {
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "",  # transformers would leave the weights of all processes but one empty
    "FSDP_ACTIVATION_CHECKPOINTING": ", and training.gradient_checkpointing=true in the recipe",
}
"""Variables of accelerate (in its config files: the same names in small letters) -> what to do besides."""


def from_environment(options: TrainingOptions) -> Callable[[Accelerator], Replicated]:
    """The class that the launcher asks for, as a function of the accelerator.

    Args:
        options: of the training.

    Raises:
        ConfigError: the launcher asks for something that training does not support.
    """
    if is_set("ACCELERATE_USE_DEEPSPEED"):
        raise ConfigError(
            "DeepSpeed is not supported; FSDP2 splits the same: use launch/fsdp2.yaml, or launch/fsdp2-offload.yaml "
            "to keep weights and optimizer state in host memory"
        )
    fsdp2 = fsdp2_options(options)
    if fsdp2 is not None:
        return lambda accelerator: FSDP2(accelerator, fsdp2)
    return Replicated


def fsdp2_options(options: TrainingOptions) -> FSDP2Options | None:
    """How the launcher asks for FSDP2; None where it does not, and for one process that offloads nothing.

    Args:
        options: of the training. Where inversions are cached, the reference's errors were computed with whole weights,
            and the policy must compute in the same precision (METHODS D37): autocast leaves the weights of norms in
            float32, and gathering them in bf16 would round them.

    Raises:
        ConfigError: the launcher or the recipe asks for something that FSDP2 runs do not support.
    """
    if not is_set("ACCELERATE_USE_FSDP"):
        return None
    cpu_offload = _flag("FSDP_OFFLOAD_PARAMS", default=False)
    if this_process().world_size == 1 and not cpu_offload:
        return None
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ConfigError(f"fsdp_version must be 2, got {version}; see launch/fsdp2.yaml")
    for variable, way_out in UNSUPPORTED.items():
        if is_set(variable):
            raise ConfigError(f"{variable.lower()} is not supported; set it to false{way_out}")
    _check_options(options)
    in_bf16 = options.mixed_precision == "bf16" and options.cached_inversion_epochs is None
    return FSDP2Options(
        reshard_after_forward=_flag("FSDP_RESHARD_AFTER_FORWARD", default=True),
        param_dtype=torch.bfloat16 if in_bf16 else None,
        step_whole_matrices=options.optimizer.name == NEEDS_WHOLE_MATRICES,
        cpu_offload=cpu_offload,
    )


def _check_options(options: TrainingOptions) -> None:
    """ConfigError where a choice of the recipe, or the installed torch, does not go with FSDP2."""
    if options.mixed_precision == "fp16":
        raise ConfigError("training.mixed_precision=fp16 is not supported by FSDP2 runs; set bf16 or no, or use DDP")
    untested = {
        "compile=true": options.compile, "channels_last=true": options.channels_last,
        f"optimizer.name={options.optimizer.name}": options.optimizer.name not in FSDP2_OPTIMIZERS,
    }
    for choice in (name for name, chosen in untested.items() if chosen):
        raise ConfigError(f"training.{choice} was never tried in FSDP2 runs, which refuse it; leave it out, or use DDP")
    if not hasattr(FSDPModule, "reset_iter_state"):
        raise ConfigError(f"FSDP2 runs need torch >= 2.13, got {torch.__version__}; upgrade it, or use DDP")


def _flag(variable: str, *, default: bool) -> bool:
    """A variable that accelerate reads in several places, of which some take "true" alone for true."""
    text = os.environ.get(variable, str(default)).lower()
    if text not in ("true", "false"):
        raise ConfigError(f"{variable.lower()} must be true or false, got {text}; see launch/fsdp2.yaml")
    return text == "true"
