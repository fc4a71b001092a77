"""The processes that train one policy together, as accelerate sees them."""

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from smpo.core.errors import ConfigError
from smpo.core.processes import this_process
from smpo.training.run import Run
from smpo.training.tracking import LOGS


def join_processes(run: Run) -> Accelerator:
    """An accelerator over all processes that the launcher has started, with the run's precision and trackers.

    Raises:
        ConfigError: accelerate has not found them all; each would train for itself, in the same folder. Or fp16 is
            asked of a CPU, where accelerate would train in float32 without a word.
    """
    started = this_process().world_size
    accelerator = Accelerator(
        mixed_precision=run.options.mixed_precision, log_with=list(run.options.trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(run.folder), logging_dir=str(run.folder / LOGS)),
        cpu=started > 1 and not torch.accelerator.is_available(),  # unless told so, it takes the CPU for one process's
    )
    if accelerator.num_processes != started:
        raise ConfigError(
            f"WORLD_SIZE is {started}, but accelerate has found {accelerator.num_processes} process; start with "
            "`accelerate launch` or torchrun, or set LOCAL_RANK, too"
        )
    if run.options.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError("training.mixed_precision=fp16 needs a GPU, got a CPU; set bf16 or no")
    return accelerator
