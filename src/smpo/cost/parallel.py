"""How a run's tensors lie over its processes, in bytes: DDP, FSDP2, DeepSpeed's ZeRO (docs/distributed.md).

Told is what the first process holds, which nowhere has less than another.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smpo.core.checks import check_known, check_positive
from smpo.core.errors import ConfigError
from smpo.training.options import TrainingOptions
from smpo.training.parallel import fsdp2, partition

SPLITS = ("ddp", "fsdp2", "zero2", "zero3")
ZERO_LIVE = 1_000_000_000
"""Weights of a network that ZeRO-3 may keep gathered until they are needed again (stage3_max_live_parameters)."""
HALVES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Spread:
    """How many processes train together, and what each holds a part of.

    Attributes:
        num_processes: each on its device.
        split: a member of SPLITS.
    """

    num_processes: int = 1
    split: str = "ddp"

    def __post_init__(self) -> None:
        check_positive(num_processes=self.num_processes)
        check_known(self.split, SPLITS, what="way to split")
        if self.split != "ddp" and self.num_processes == 1:
            raise ConfigError(f"{self.split} splits over several processes, got one; name them by --processes")

    def check(self, options: TrainingOptions) -> None:
        """ConfigError where training would refuse the optimizer."""
        name = options.optimizer.name
        supported = {"fsdp2": fsdp2.OPTIMIZERS, "zero2": partition.OPTIMIZERS, "zero3": partition.OPTIMIZERS}
        if name not in supported.get(self.split, (name,)):
            choices = ", ".join(supported[self.split])
            raise ConfigError(
                f"{self.split} runs refuse training.optimizer.name={name}; choose {choices} or another split"
            )

    @property
    def divides_weights(self) -> bool:
        """Whether each process keeps a part of every weight."""
        return self.split in ("fsdp2", "zero3")

    def share(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of this process's part: of rows under FSDP2, of numbers under ZeRO; rounded up for each tensor."""
        if self.split == "ddp":
            return bytes_of(tensors)
        if self.split == "fsdp2":
            return sum(self._part(p.shape[0]) * (p.numel() // p.shape[0]) * p.element_size() for p in tensors)
        return sum(self._part(p.numel()) * p.element_size() for p in tensors)

    def weights(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of a network's weights, or of their average, as they lie."""
        return self.share(tensors) if self.divides_weights else bytes_of(tensors)

    def update(self, trained: Sequence[Tensor], *, fused: bool) -> int:
        """Bytes that AdamW's step needs: a copy of the weights unless it is fused, and ZeRO-3's of the gradients."""
        return self.share(trained) * ((not fused) + (self.split == "zero3"))

    def exchanged(self, trained: Sequence[Tensor]) -> int:
        """Bytes in which gradients wait to be sent: DDP's copies of all, ZeRO's buffer."""
        if self.num_processes == 1 or self.split == "fsdp2":
            return 0
        return bytes_of(trained) if self.split == "ddp" else partition.BUCKET * trained[0].element_size()

    def gathered_as(self, options: TrainingOptions) -> torch.dtype | None:
        """The type in which FSDP2 gathers weights where it is not their own."""
        stored = options.cached_inversion_epochs is not None  # its policy must round as the reference did (METHODS D37)
        return HALVES[options.mixed_precision] if self.split == "fsdp2" and not stored else None

    def gathered(self, unet: nn.Module, options: TrainingOptions) -> int:
        """Bytes of weights and gradients that are whole for a while in forward and backward.

        FSDP2: the root's own weights, those of a unit, and those of the next, which are fetched meanwhile; in the
        backward also the gradients of root and unit, and a float32 copy that is being averaged. ZeRO-3: as many
        weights as it may keep.
        """
        if self.split == "zero3":
            return 4 * min(sum(weight.numel() for weight in unet.parameters()), ZERO_LIVE)
        if self.split != "fsdp2":
            return 0
        size = (self.gathered_as(options) or torch.float32).itemsize
        units = [list(unit.parameters()) for unit in unet.modules() if isinstance(unit, fsdp2.GATHERED_TOGETHER)]
        inside = {id(p) for unit in units for p in unit}
        root = [p for p in unet.parameters() if id(p) not in inside]
        every = [sum(p.numel() for p in unit) for unit in (root, *units)]
        trained = [sum(p.numel() for p in unit if p.requires_grad) for unit in (root, *units)]
        weights, gradients = every[0] + 2 * max(every[1:]), trained[0] + max(trained[1:])
        return size * (weights + gradients) + 4 * max(trained)

    def inverting(self, unet: nn.Module, options: TrainingOptions) -> int:
        """Bytes of a network that is whole while it inverts, beyond its part; ZeRO gathers float32."""
        if not self.divides_weights:
            return 0
        size = (self.gathered_as(options) or torch.float32).itemsize
        return size * sum(p.numel() for p in unet.parameters())

    def _part(self, count: int) -> int:
        return -(-count // self.num_processes)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of all these tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
