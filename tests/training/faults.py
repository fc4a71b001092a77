"""Power cuts at the k-th call that changes the disk, for processes that patch themselves."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smpo.training import checkpoint
from tests.training.outcomes import die

CALLS = [(checkpoint, "save_file"), (os, "fsync"), (os, "replace"), (os, "rename"), (shutil, "rmtree")]


class PowerCut:
    """Counts disk-changing calls while armed and kills this process in the middle of call number `at`."""

    def __init__(self, at: int | None) -> None:
        self.at, self.count, self.armed = at, 0, False
        for owner, name in CALLS:
            setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if self.armed:
                if self.count == self.at:
                    _half_done(name, *arguments)
                    die()
                self.count += 1
            return call(*arguments, **options)

        return counted


def _half_done(name: str, *arguments: Any) -> None:
    """What such a call may have done of its work when the power fails."""
    if name == "save_file":
        Path(arguments[1]).write_bytes(b"half a file")
    if name == "rmtree":
        files = sorted(path for path in Path(arguments[0]).rglob("*") if path.is_file())
        for file in files[: len(files) // 2]:
            file.unlink()
