"""The processes that share a stage's work: started by `accelerate launch`, torchrun, or whatever sets RANK, WORLD_SIZE.

A stage that can be shared lists what is missing, waits for all (so that every process has seen the same state), does
its `shard` of it, waits for all again, and leaves the finishing to the main process:

    missing = ...
    wait_for_all("list the missing images")
    for item in shard(missing): ...          # files, written atomically
    wait_for_all("make their images")
    if this_process().is_main: ...           # join the files, mark the artefact complete
    wait_for_all("finish the image set")

Waiting goes over TCP (gloo), so a process that dies breaks the wait of the others at once: nobody is left hanging.
The group is the stage's own: it is no default process group, and accelerate finds none when it sets up training.
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

MEETING = timedelta(minutes=30)  # from the first process's start to the last one's
WAITING = timedelta(days=7)      # for a living process to end its share; a dead one ends the wait at once
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Process:
    """This process among those that do the same work: `rank` in [0, world_size)."""

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
        """Whether this is the process that finishes artefacts and talks."""
        return self.rank == 0


def is_set(variable: str) -> bool:
    """Whether a launcher has set this variable of the environment to true, as accelerate reads them."""
    return os.environ.get(variable, "false").lower() in ("true", "1")


def this_process() -> Process:
    """This process by the environment's RANK and WORLD_SIZE; alone without them.

    Raises:
        ConfigError: they are no numbers, or do not fit.
    """
    given = {name: os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    for name, value in given.items():
        if not value.isdecimal():
            raise ConfigError(f"{name} must be a whole number >= 0, got {value!r}; correct or unset it")
    return Process(int(given["RANK"]), int(given["WORLD_SIZE"]))


def shard(items: Sequence[Item], process: Process | None = None) -> list[Item]:
    """The items of `process` (default: this one): every world_size-th, from its rank on; all shards make the whole."""
    process = process or this_process()
    return list(items[process.rank :: process.world_size])


def wait_for_all(task: str) -> None:
    """Return when every process has made this call; alone, at once.

    Args:
        task: what the others are to have done, for the message: "make their images".

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
    """What `action` returns; the main process calls it, and when it is through, the others do.

    So an artefact is opened once and then found by the others, and is refused once and for all.

    Raises:
        ProcessError: the main process, or another, ended before it was through.
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
    """ "cuda:i", a GPU of this process's own where there are enough; else "mps" on a Mac that has it, else "cpu"."""
    if not torch.cuda.is_available():
        return "mps" if torch.backends.mps.is_available() else "cpu"
    place = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", str(this_process().rank)))
    return f"cuda:{int(place) % torch.cuda.device_count()}"


@cache
def _group(process: Process) -> dist.ProcessGroupGloo:
    """Connections between all processes; made at the first wait and kept."""
    try:
        store, rank, world_size = next(iter(dist.rendezvous("env://", timeout=MEETING)))
    except ValueError as error:  # MASTER_ADDR or MASTER_PORT is not set
        raise ConfigError(
            f"WORLD_SIZE is {process.world_size}, but {error}; start with `accelerate launch` or torchrun"
        ) from error
    return dist.ProcessGroupGloo(dist.PrefixStore("smpo", store), rank, world_size, MEETING)
