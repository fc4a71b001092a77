"""The processes of a sweep: started deaf to Ctrl-C, which is the sweep's own to handle, and ended with it."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from smpo.core.errors import Stopped
from smpo.core.signals import interrupts_ignored


@contextmanager
def worker_pool(jobs: int, settle: Callable[[Any, int], None]) -> Iterator[ProcessPoolExecutor]:
    """`jobs` spawned processes, each of which first calls settle(its places, jobs).

    On `Stopped` they are asked to end: a training saves first. On a second one they are killed.
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


def submitted(pool: ProcessPoolExecutor, call: Callable[..., Any], *arguments: Any) -> Future:
    """The call, submitted; the first starts all processes, which ignore Ctrl-C from their birth on."""
    with interrupts_ignored():
        return pool.submit(call, *arguments)
