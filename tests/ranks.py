"""Several processes that know their ranks, as a launcher would start them; forked: importing torch takes seconds."""

import multiprocessing
import os
import socket
from collections.abc import Callable


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ranked(work: Callable[[], object], world_size: int, *, timeout: float = 60) -> list[int]:
    """The exit codes of `world_size` forked processes that do `work`, each knowing its rank."""
    place = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def start(rank: int) -> multiprocessing.Process:
        def child() -> None:
            os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
            work()

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        return process

    children = [start(rank) for rank in range(world_size)]
    for process in children:
        process.join(timeout)
    hanging = [process for process in children if process.is_alive()]
    for process in hanging:
        process.kill()
        process.join()
    assert not hanging, "a process hangs"
    return [process.exitcode for process in children]
