"""Optimizers with the field's constants, the learning rate as a function of the optimizer step alone, averages."""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from transformers.optimization import Adafactor

from smpo.core.errors import ConfigError
from smpo.training.options import OptimizerOptions


def build_optimizer(parameters: Iterable[nn.Parameter], options: OptimizerOptions) -> Optimizer:
    """AdamW, or Adafactor as the DPO family uses it for SDXL: no relative step, no parameter scaling (METHODS D25).

    Raises:
        ConfigError: `adamw_8bit` without the package bitsandbytes.
    """
    if options.name != "adafactor":
        fused: dict[str, Any] = {"fused": True} if options.fused else {}
        return _adamw(options.name)(
            parameters, lr=options.lr, betas=options.betas, eps=options.eps, weight_decay=options.weight_decay, **fused
        )
    return Adafactor(
        parameters, lr=options.lr, weight_decay=options.weight_decay, clip_threshold=1.0, scale_parameter=False,
        relative_step=False, warmup_init=False,
    )


def learning_rate(step: int, *, total: int, options: OptimizerOptions) -> float:
    """Learning rate of the update number `step` = 0, 1, ...: linear warm-up, then the schedule down to `total`.

    Counted in optimizer steps, whatever the number of processes or micro-batches (accelerate #963 counts otherwise).
    Update k of the warm-up has (k + 1) / warmup_steps of the rate. The released codes take diffusers' schedule, whose
    update k has k / warmup_steps and whose first one does nothing: over their 200 steps, 100 of warm-up, ours add up to
    150.5 full steps and theirs to 149.5, 0.7 % less.
    """
    if step < options.warmup_steps:
        return options.lr * (step + 1) / options.warmup_steps
    if options.schedule == "constant":
        return options.lr
    done = (step - options.warmup_steps) / max(1, total - options.warmup_steps)
    if options.schedule == "linear":
        return options.lr * (1 - done)
    return options.lr * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group this rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def ema_update_(average: nn.Module, module: nn.Module, *, decay: float) -> None:
    """average <- decay * average + (1 - decay) * module, every parameter in place."""
    for ours, theirs in zip(average.parameters(), module.parameters(), strict=True):
        ours.lerp_(theirs.to(ours), 1 - decay)


def optimizer_tensors(optimizer: Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, dict]]:
    """The optimizer's state as named tensors and JSON-serialisable scalars: {"3.exp_avg": ...}, {"3": {"step": 7}}."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict] = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):  # bitsandbytes' code books are one for all, which safetensors refuses
                tensors[f"{index}.{key}"] = value.clone() if key.startswith("qmap") else value
            else:
                scalars.setdefault(str(index), {})[key] = value
    return tensors, scalars


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, torch.Tensor], scalars: dict[str, dict]) -> None:
    """Put back what `optimizer_tensors` gave; parameter groups keep their present settings.

    What has the shape of its parameter gets its memory layout, too, which fused and 8-bit updates rely on.
    """
    state: dict[int, dict] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    for index, values in scalars.items():
        state.setdefault(int(index), {}).update(values)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter in _parameters(optimizer):
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and not parameter.is_contiguous():
                optimizer.state[parameter][key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """In the order by which a state dictionary numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _adamw(name: str) -> Callable[..., Optimizer]:
    if name == "adamw":
        return AdamW
    try:
        adamw_8bit: Callable[..., Optimizer] = importlib.import_module("bitsandbytes.optim").AdamW8bit
        return adamw_8bit
    except ImportError as error:
        raise ConfigError(
            f"training.optimizer.name={name} needs the package bitsandbytes, not installed; pip install 'smpo[8bit]'"
        ) from error
