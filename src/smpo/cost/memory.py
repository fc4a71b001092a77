"""Memory of a training process, by part."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from smpo.cost.allocation import activation_bytes
from smpo.cost.parallel import HALVES, Parallel
from smpo.training.options import OptimizerOptions, TrainingOptions
from smpo.training.policy.lora import trained_parameters

SMALL = 4096  # bitsandbytes' min_8bit_size
ALONE = Parallel()


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, without its libraries and the allocator's losses; of tensors that are split, its part.

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
        gathered: tensors that are whole for a while in forward and backward, where weights are split.
        inverting: the network that is whole while it inverts, where weights are split.
        offloaded: whether weights, gradients and optimizer state lie in host memory, where the optimizer steps.
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
    gathered: int = 0
    inverting: int = 0
    offloaded: bool = False

    @property
    def peak(self) -> int:
        """The most that the device holds at once, with accumulated gradients: as one trains, inverts or updates."""
        training, inverting = self.kept + self.temporary + self.gathered, self.inverting + self.temporary
        if self.offloaded:
            return max(training, inverting)
        return self._lasting + max(training, inverting, self.update)

    @property
    def host(self) -> int:
        """The most that host memory holds at once of tensors that would otherwise be on the device."""
        return self._lasting + self.update if self.offloaded else 0

    @property
    def _lasting(self) -> int:
        return self.policy + self.reference + self.average + self.gradients + self.buckets + self.optimizer


def training_memory(
    denoiser: nn.Module, inputs: dict[str, Any], options: TrainingOptions, *, has_reference: bool, inverts: bool = True,
    parallel: Parallel = ALONE,
) -> Memory:
    """The memory of a training process.

    Args:
        denoiser: on the meta device, in the type of its weights.
        inputs: keyword arguments of its call on a micro-batch, on the meta device.
        options: how it is trained.
        has_reference: whether a second denoiser is held.
        inverts: whether a network makes any number of passes without a backward.
        parallel: the processes that train together.

    Raises:
        ConfigError: this way of training in parallel refuses the optimizer.
    """
    parallel.check(options)
    every, trained, name = list(denoiser.parameters()), trained_parameters(denoiser), options.optimizer.name
    kept, temporary = activation_bytes(
        _as_gathered(denoiser, options, parallel), inputs, half=HALVES[options.mixed_precision],
        checkpointing=options.gradient_checkpointing,
    )
    return Memory(
        policy=parallel.share(every), reference=parallel.share(every) if has_reference else 0,
        average=0 if options.ema_decay is None else parallel.share(trained), gradients=parallel.share(trained),
        buckets=parallel.exchanged(trained), optimizer=state_bytes(trained, name, parallel), kept=kept,
        temporary=temporary, update=update_bytes(trained, options.optimizer, parallel),
        gathered=parallel.gathered(denoiser, options),
        inverting=parallel.inverting(denoiser, options) if inverts else 0, offloaded=parallel.offloads,
    )


def _as_gathered(denoiser: nn.Module, options: TrainingOptions, parallel: Parallel) -> nn.Module:
    """`denoiser` with the weights that a forward meets; gathered ones, being given back, are no activations."""
    dtype = parallel.param_dtype(options)
    return denoiser if dtype is None else nn.Module.to(copy.deepcopy(denoiser), dtype)


def state_bytes(trained: Sequence[Tensor], optimizer: str, parallel: Parallel = ALONE) -> int:
    """Bytes of the optimizer's tensors.

    AdamW keeps two moments in the type of the weights, of this process's part of them. In 8 bits each takes a byte a
    weight and 4 bytes for every 256, and 1 KiB for its code book, which is one for all but in a resumed run; small
    tensors (below 4,096 weights) keep float32. Adafactor keeps float32, on every process: of a matrix the means over
    its rows and over its columns (the last two dimensions, so that a 3 x 3 convolution is hardly made smaller), of a
    vector all.
    """
    if optimizer == "adamw":
        return 2 * parallel.share(trained)
    if optimizer == "adamw_8bit":
        blocks = [(p.numel(), -(-p.numel() // 256)) for p in trained]
        return sum(2 * (n + 4 * num + 1024) if n >= SMALL else 2 * 4 * n for n, num in blocks)
    return sum(
        4 * (p.numel() // p.shape[-1] + p.numel() // p.shape[-2] if p.ndim >= 2 else p.numel()) for p in trained
    )


def update_bytes(trained: Sequence[Tensor], optimizer: OptimizerOptions, parallel: Parallel = ALONE) -> int:
    """Bytes that come and go in the optimizer's step.

    AdamW on a GPU updates all weights at once and holds a copy of them (PyTorch's note on `foreach`), unless it is
    fused; on a CPU it goes through the weights one by one, with two float32 tensors as large as its rows. AdamW of 8
    bits updates in place. Adafactor goes through the weights one by one, with five float32 tensors as large as the
    weight, and where they are split with the whole weight and its whole gradient.
    """
    if optimizer.name == "adamw_8bit" or optimizer.fused:
        return 0
    if optimizer.name == "adamw":
        return 2 * max(parallel.share([p]) for p in trained) if parallel.offloads else parallel.share(trained)
    return (5 + 2 * parallel.splits_weights) * 4 * max(p.numel() for p in trained)
