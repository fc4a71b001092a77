"""The processes that share the work of a stage, as `accelerate launch`, torchrun or any launcher with RANK starts them.

Each process lists what is missing and waits for all others, so that all have seen the same state. Then it does its
`shard` and waits again, and the main process finishes the artefact:

    missing = ...
    wait_for_all("list the missing images")
    for item in shard(missing): ...          # files, written atomically
    wait_for_all("make their images")
    if this_process().is_main: ...           # join the files, mark the artefact complete
    wait_for_all("finish the image set")

Processes wait over TCP (gloo): if one dies, the others get an error at once instead of waiting for ever. The process
group belongs to this module and is not torch's default group, so accelerate can set up its own for training.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist

from smpo.core.errors import ConfigError, ProcessError

MEETING = timedelta(minutes=30)  # between the starts of the first and the last process
WAITING = timedelta(days=7)      # until a living process has done its shard; the end of a process ends the wait at once
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Process:
    """The number of a process, `rank` in [0, world_size), among the `world_size` processes that share the work."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(
                f"RANK must lie in [0, WORLD_SIZE), got RANK={self.rank} and WORLD_SIZE={self.world_size}; "
                "start with `accelerate launch` or torchrun, or unset both"
            )

    @property
    def is_main(self) -> bool:
        """Whether this is the process that finishes artefacts and prints."""
        return self.rank == 0


def is_set(variable: str) -> bool:
    """Whether this environment variable is true, by accelerate's rule."""
    return os.environ.get(variable, "false").lower() in ("true", "1")


def this_process() -> Process:
    """This process, by the environment variables RANK and WORLD_SIZE; without them the only one.

    Raises:
        ConfigError: they are no numbers, or the rank is not below the size.
    """
    given = {name: os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    for name, value in given.items():
        if not value.isdecimal():
            raise ConfigError(f"{name} must be a whole number >= 0, got {value!r}; correct or unset it")
    return Process(int(given["RANK"]), int(given["WORLD_SIZE"]))


def shard(items: Sequence[Item], process: Process | None = None) -> list[Item]:
    """The items of `process` (default: this one): every world_size-th item, beginning with its rank."""
    process = process or this_process()
    return list(items[process.rank :: process.world_size])


def wait_for_all(task: str) -> None:
    """Return when every process has made this call.

    Args:
        task: what all have done by then, for the error message: "make their images".

    Raises:
        ProcessError: another process ended before its call, or none of them could be reached.
    """
    process = this_process()
    if process.world_size == 1:
        return
    options = dist.BarrierOptions()
    options.timeout = WAITING
    try:
        _group(process).barrier(options).wait()  # type: ignore[attr-defined]  # torch's annotations lack it
    except RuntimeError as error:
        raise ProcessError(
            f"process {process.rank} of {process.world_size} waited for the others to {task}, and one of them has "
            "ended or cannot be reached; see its own message, then run the same command again, with any number of them "
            f"({str(error).splitlines()[0][:200]})"
        ) from error


def main_first(task: str, action: Callable[[], Result]) -> Result:
    """Call `action` in the main process, then in all others, and return its result.

    So one process makes the files that the others then read, and one process reports an error.

    Raises:
        ProcessError: another process ended during the call.
    """
    process = this_process()
    if process.is_main:
        result = action()
    wait_for_all(task)
    if not process.is_main:
        result = action()
    wait_for_all(task)
    return result


def local_device() -> str:
    """The device of this process: "cuda:i", its own GPU if there are enough; else "mps" on a Mac, else "cpu"."""
    if not torch.cuda.is_available():
        return "mps" if torch.backends.mps.is_available() else "cpu"
    place = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", str(this_process().rank)))
    return f"cuda:{int(place) % torch.cuda.device_count()}"


@cache
def _group(process: Process) -> dist.ProcessGroupGloo:
    """The process group; it is made at the first wait and kept."""
    try:
        store, rank, world_size = next(iter(dist.rendezvous("env://", timeout=MEETING)))
    except ValueError as error:  # MASTER_ADDR or MASTER_PORT is not set
        raise ConfigError(
            f"WORLD_SIZE is {process.world_size}, but {error}; start with `accelerate launch` or torchrun"
        ) from error
    return dist.ProcessGroupGloo(dist.PrefixStore("smpo", store), rank, world_size, MEETING)
