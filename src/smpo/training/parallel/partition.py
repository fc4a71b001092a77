"""How DeepSpeed's ZeRO is asked for: by `accelerate launch --config_file launch/zero2.yaml`, or zero3.yaml.

The launcher sets environment variables. Of a DeepSpeed config, what `zero_optimization` holds counts; the rest is the
recipe's.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from accelerate import DeepSpeedPlugin

from smpo.core.errors import ConfigError
from smpo.core.processes import is_set, this_process
from smpo.training.options import TrainingOptions

OPTIMIZERS = ("adamw",)
BUCKET = 50_000_000
"""Numbers of a buffer, asked for whole, in which ZeRO collects gradients to send; its own default is ten times that."""


@dataclass(frozen=True)
class Partition:
    """What is split, and how.

    Attributes:
        stage: 2 or 3.
        config: DeepSpeed's, whole.
        bf16: networks compute under autocast.
    """

    stage: int
    config: dict[str, Any]
    bf16: bool


def partition_asked(options: TrainingOptions) -> Partition | None:
    """How the launcher asks to split by ZeRO, by its environment; None where it does not ask.

    Raises:
        ConfigError: it asks for what training does not do; the package deepspeed is not there.
    """
    if not is_set("ACCELERATE_USE_DEEPSPEED"):
        return None
    if find_spec("deepspeed") is None:
        raise ConfigError("ZeRO runs need the package deepspeed, not installed; pip install 'smpo[deepspeed]'")
    if is_set("ACCELERATE_DEEPSPEED_ZERO3_INIT"):
        raise ConfigError("zero3_init_flag is not supported; set it to false")
    zero = DeepSpeedPlugin().deepspeed_config.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    if stage not in (2, 3):
        raise ConfigError(f"zero_stage must be 2 or 3, got {stage}; see launch/zero2.yaml, or use DDP")
    for part, devices in (("param", ("none",)), ("optimizer", ("none", "cpu"))):
        device = (zero.get(f"offload_{part}") or {}).get("device") or "none"
        if device not in devices:
            raise ConfigError(f"offload_{part}_device must be {' or '.join(devices)}, got {device}")
    _check_options(options, stage)
    config = {
        "train_micro_batch_size_per_gpu": options.micro_batch_size,
        "gradient_accumulation_steps": options.accumulation(this_process().world_size),
        "gradient_clipping": options.optimizer.max_grad_norm,
        # not DeepSpeed's own linear layers, which would take the place of PyTorch's everywhere and round twice
        "zero_optimization": {"reduce_bucket_size": BUCKET, **zero, "memory_efficient_linear": False},
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's own is compiled on the spot; ours may be fused
        "steps_per_print": None,
    }
    bf16 = options.mixed_precision == "bf16"
    if bf16:  # no module's weights and gradients are sent in bf16
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return Partition(stage, config, bf16)


def _check_options(options: TrainingOptions, stage: int) -> None:
    """ConfigError where a choice of the recipe does not go with ZeRO."""
    if options.optimizer.name not in OPTIMIZERS:
        raise ConfigError(
            f"training.optimizer.name={options.optimizer.name} is not supported by ZeRO runs, which flatten all "
            "parameters; set adamw, or use DDP or FSDP2"
        )
    unknown = {
        "mixed_precision=fp16": options.mixed_precision == "fp16", "compile=true": options.compile,
        "channels_last=true": options.channels_last,
    }
    averages = ("ema_decay", "reference_ema_decay") if stage == 3 else ()
    unknown |= {f"{name}={getattr(options, name)}": getattr(options, name) is not None for name in averages}
    for choice in (name for name, chosen in unknown.items() if chosen):
        raise ConfigError(
            f"training.{choice} is not supported by ZeRO runs of stage {stage}; leave it out, or use DDP or FSDP2"
        )
