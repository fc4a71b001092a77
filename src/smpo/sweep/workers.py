"""The worker processes of a sweep: they ignore Ctrl-C, which the sweep handles, and end with the sweep."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.queues import Queue
from typing import ParamSpec, TypeVar

from smpo.core.errors import Stopped
from smpo.core.signals import interrupts_ignored

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def worker_pool(jobs: int, settle: Callable[["Queue[int]", int], None]) -> Iterator[ProcessPoolExecutor]:
    """`jobs` spawned processes; each first calls settle(queue of the workers' numbers, jobs).

    On `Stopped` they are terminated, and a training saves a checkpoint first. On a second `Stopped` they are killed.
    """
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for place in range(jobs):
        places.put(place)
    try:
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=settle, initargs=(places, jobs)) as pool:
            try:
                yield pool
            except Stopped:
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
    except Stopped:
        for process in multiprocessing.active_children():
            process.kill()
        raise


def submitted(pool: ProcessPoolExecutor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """The submitted call. The first call starts all processes, so that they ignore Ctrl-C from the start."""
    with interrupts_ignored():
        return pool.submit(call, *args, **kwargs)
