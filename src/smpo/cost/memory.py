"""Memory of a training process, by part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smpo.cost.allocation import activation_bytes
from smpo.training.lora import trained_parameters
from smpo.training.options import TrainingOptions

SMALL = 4096  # bitsandbytes' min_8bit_size
HALVES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, its libraries and the allocator's losses apart.

    Attributes:
        policy: weights.
        reference: weights; 0 where there is none.
        average: the moving average of the trained weights.
        gradients: of the trained weights.
        buckets: the copies of the gradients that several processes exchange.
        optimizer: its state.
        kept: activations that the forward leaves to the backward.
        temporary: the most that comes and goes beside them.
        update: the most that the optimizer's step needs, when no activations are left.
    """

    policy: int
    reference: int
    average: int
    gradients: int
    buckets: int
    optimizer: int
    kept: int
    temporary: int
    update: int

    @property
    def peak(self) -> int:
        """The most that is alive at once, with accumulated gradients."""
        lasting = self.policy + self.reference + self.average + self.gradients + self.buckets + self.optimizer
        return lasting + max(self.kept + self.temporary, self.update)


def training_memory(
    unet: nn.Module, inputs: dict[str, Any], options: TrainingOptions, *, has_reference: bool, num_processes: int = 1
) -> Memory:
    """The memory of a training process.

    Args:
        unet: on the meta device, in the type of its weights.
        inputs: keyword arguments of its call on a micro-batch, on the meta device.
        options: how it is trained.
        has_reference: whether a second UNet is held.
        num_processes: that train together.
    """
    every, trained = list(unet.parameters()), trained_parameters(unet)
    half, checkpointing = HALVES[options.mixed_precision], options.gradient_checkpointing
    kept, temporary = activation_bytes(unet, inputs, half=half, checkpointing=checkpointing)
    size = bytes_of(trained)
    return Memory(
        policy=bytes_of(every), reference=bytes_of(every) if has_reference else 0,
        average=0 if options.ema_decay is None else size, gradients=size, buckets=size if num_processes > 1 else 0,
        optimizer=state_bytes(trained, options.optimizer.name), kept=kept, temporary=temporary,
        update=0 if options.optimizer.fused else update_bytes(trained, options.optimizer.name),
    )


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """Bytes of all these tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def state_bytes(trained: Sequence[Tensor], optimizer: str) -> int:
    """Bytes of the optimizer's tensors.

    AdamW keeps two moments in the type of the weights. In 8 bits each takes a byte a weight and 4 bytes for every 256,
    and 1 KiB for its code book, which is one for all but in a resumed run; small tensors (below 4,096 weights) keep
    float32. Adafactor keeps float32: of a matrix the means over its rows and over its columns (the last two
    dimensions, so that a 3 x 3 convolution is hardly made smaller), of a vector all.
    """
    if optimizer == "adamw":
        return 2 * bytes_of(trained)
    if optimizer == "adamw_8bit":
        blocks = [(p.numel(), -(-p.numel() // 256)) for p in trained]
        return sum(2 * (n + 4 * num + 1024) if n >= SMALL else 2 * 4 * n for n, num in blocks)
    return sum(
        4 * (p.numel() // p.shape[-1] + p.numel() // p.shape[-2] if p.ndim >= 2 else p.numel()) for p in trained
    )


def update_bytes(trained: Sequence[Tensor], optimizer: str) -> int:
    """Bytes that come and go in the optimizer's step.

    AdamW on a GPU updates all weights at once and holds a copy of them (PyTorch's note on `foreach`), unless it is
    fused; that of 8 bits updates in place; Adafactor goes through the weights one by one, with five float32 tensors as
    large as the weight.
    """
    if optimizer == "adamw":
        return bytes_of(trained)
    if optimizer == "adamw_8bit":
        return 0
    return 5 * 4 * max(p.numel() for p in trained)
