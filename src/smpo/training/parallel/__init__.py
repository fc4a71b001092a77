"""How a run's tensors lie over its processes (DDP, FSDP2, DeepSpeed's ZeRO), as the launcher asks.

`from_environment` reads the launcher's environment; `Replicated` is the seam that the others fill.
"""

from collections.abc import Callable
from importlib import import_module

from accelerate import Accelerator

from smpo.training.options import TrainingOptions
from smpo.training.parallel.fsdp2 import FSDP2, sharding_asked
from smpo.training.parallel.partition import partition_asked
from smpo.training.parallel.replicated import Replicated


def from_environment(options: TrainingOptions, *, stored: bool = False) -> Callable[[Accelerator], Replicated]:
    """Makes what the launcher asks for, by its environment.

    Args:
        options: of the training.
        stored: the reference's errors were taken ahead of the run, with whole weights.

    Raises:
        ConfigError: it asks for what training does not do.
    """
    partition = partition_asked(options)
    if partition is not None:
        zero = import_module("smpo.training.parallel.zero")  # needs DeepSpeed, which is an extra
        return lambda accelerator: (zero.Zero2 if partition.stage == 2 else zero.Zero3)(accelerator, partition)
    sharding = sharding_asked(options, stored=stored)
    if sharding is not None:
        return lambda accelerator: FSDP2(accelerator, sharding)
    return Replicated
