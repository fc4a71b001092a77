"""The seam between the trainer and its data."""

from collections.abc import Iterator
from typing import Any, Protocol

from smpo.core.processes import Process


class BatchSource(Protocol):
    """Where the micro-batches of a run come from.

    Micro-batch j of a process is a function of the run and of j alone: a resumed run reads on at any j, and skips
    nothing by reading it.

    Attributes:
        examples_per_epoch: the number of examples after which all data was used once.
    """

    @property
    def examples_per_epoch(self) -> int: ...  # noqa: D102

    def micro_batches(self, first: int, stop: int, *, process: Process, pin_memory: bool) -> Iterator[Any]:
        """The micro-batches `first` to `stop` - 1 of a process, on the CPU; the learner knows their type.

        A batch has `ids`, the names of its examples for messages, and `to(device)`.

        Args:
            first: number of the first micro-batch, counted from the start of the run.
            stop: number behind the last one.
            process: whose share of each optimizer step this is.
            pin_memory: put what `to` sends into pinned memory.
        """
        ...
