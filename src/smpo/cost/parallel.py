"""Bytes that each process of a training holds, by the way it is split: DDP, FSDP2, FSDP2 with offloading.

The numbers are those of the first process, which never holds less than another (docs/distributed.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smpo.core.checks import check_known, check_positive
from smpo.core.errors import ConfigError
from smpo.training.options import TrainingOptions
from smpo.training.parallel.environment import FSDP2_OPTIMIZERS
from smpo.training.parallel.fsdp2 import blocks_of

OFFLOAD = "fsdp2-offload"
SPLITS = ("ddp", "fsdp2", OFFLOAD)
HALVES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Parallel:
    """How many processes train together, and how tensors are split over them.

    Attributes:
        num_processes: each on its device.
        split: a member of SPLITS.
    """

    num_processes: int = 1
    split: str = "ddp"

    def __post_init__(self) -> None:
        check_positive(num_processes=self.num_processes)
        if self.split in ("zero2", "zero3"):
            raise ConfigError(f"{self.split} is not supported any more; use fsdp2, or {OFFLOAD}")
        check_known(self.split, SPLITS, what="way to split")
        if self.split == "fsdp2" and self.num_processes == 1:
            raise ConfigError(f"fsdp2 splits over several processes, got one; set --processes, or use {OFFLOAD}")

    def check(self, options: TrainingOptions) -> None:
        """ConfigError where training would refuse the optimizer."""
        name = options.optimizer.name
        if self.splits_weights and name not in FSDP2_OPTIMIZERS:
            choices = ", ".join(FSDP2_OPTIMIZERS)
            raise ConfigError(
                f"{self.split} runs refuse training.optimizer.name={name}; choose {choices} or another split"
            )

    @property
    def splits_weights(self) -> bool:
        """Whether each process keeps its rows of every tensor."""
        return self.split != "ddp"

    @property
    def offloads(self) -> bool:
        """Whether these rows lie in host memory."""
        return self.split == OFFLOAD

    def share(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of this process's part of these tensors: whole, or of each its rows, rounded up."""
        if not self.splits_weights:
            return bytes_of(tensors)
        return sum(
            -(-p.shape[0] // self.num_processes) * (p.numel() // p.shape[0]) * p.element_size() for p in tensors
        )

    def exchanged(self, trained: Iterable[Tensor]) -> int:
        """Bytes of the copies in which DDP sends gradients."""
        return 0 if self.num_processes == 1 or self.splits_weights else bytes_of(trained)

    def param_dtype(self, options: TrainingOptions) -> torch.dtype | None:
        """The type in which FSDP2 gathers weights; None is their own."""
        stored = options.cached_inversion_epochs is not None  # the policy must round as the reference did (METHODS D37)
        return HALVES[options.mixed_precision] if self.splits_weights and not stored else None

    def gathered(self, denoiser: nn.Module, options: TrainingOptions) -> int:
        """Bytes of weights and gradients that are whole for a while in forward and backward.

        They are the root's own weights, those of a block, and those of the next, which are gathered meanwhile; in the
        backward also the gradients of root and block, and a float32 copy that is being averaged. Where rows lie in host
        memory, those of a block are on the device besides, in float32, before they are gathered.
        """
        if not self.splits_weights:
            return 0
        size = (self.param_dtype(options) or torch.float32).itemsize
        blocks = [list(block.parameters()) for block in blocks_of(denoiser)]
        inside = {id(p) for block in blocks for p in block}
        root = [p for p in denoiser.parameters() if id(p) not in inside]
        every = [sum(p.numel() for p in block) for block in (root, *blocks)]
        trained = [sum(p.numel() for p in block if p.requires_grad) for block in (root, *blocks)]
        weights, gradients = every[0] + 2 * max(every[1:]), trained[0] + max(trained[1:])
        copied = max(self.share(block) for block in (root, *blocks)) if self.offloads else 0
        return size * (weights + gradients) + 4 * max(trained) + copied

    def inverting(self, denoiser: nn.Module, options: TrainingOptions) -> int:
        """Bytes of a network that is whole while it inverts, beyond its part."""
        if not self.splits_weights:
            return 0
        size = (self.param_dtype(options) or torch.float32).itemsize
        return size * sum(p.numel() for p in denoiser.parameters())


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of all these tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
