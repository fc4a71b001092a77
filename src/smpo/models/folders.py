"""The folders of a pipeline's parts, and the JSON files in them, read without trust.

Every fault is one line that names the part, its folder, the reason and the way out.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smpo.core.errors import ConfigError

MAX_JSON_BYTES = 64 * 2**20  # a tokenizer.json has 4 MB
MAY_BE_INFINITE = "lambda_min_clipped"  # of DPM-Solver schedulers, minus infinity unless set
LEFT_TO_DEFAULTS = "_use_default_values"  # diffusers would not read the keys that this lists, though they are there
WAY_OUT = "give a diffusers pipeline folder or hub id"
SHOWN = 240  # characters of a reason


@dataclass(frozen=True)
class Part:
    """A part of a pipeline: a folder with a config, and weights or a vocabulary.

    Attributes:
        folder: the part's own.
    """

    folder: Path

    @property
    def name(self) -> str:
        """"unet", "vae", ..."""
        return self.folder.name

    def error(self, reason: object, *, way_out: str = WAY_OUT) -> ConfigError:
        """One line: the part, where it lies, the first line of `reason`, the way out."""
        line = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        if len(line) > SHOWN:  # torch, for one, explains its unpickler at length
            line = f"{line[:SHOWN]}..."
        return ConfigError(f"model: cannot load '{self.name}' of {self.folder.parent} ({line}); {way_out}")

    def file(self, name: str) -> Path:
        """The file `name` of the part; ConfigError where it is no file that this user may read."""
        path = self.folder / name
        reason = unreadable(path)
        if reason:
            raise self.error(f"{name} {reason}")
        return path

    def json(self, name: str) -> dict[str, Any]:
        """The mapping in the JSON file `name`, all of whose numbers are finite.

        Raises:
            ConfigError: the file is missing, unreadable, no JSON, no mapping, or holds NaN or an infinity.
        """
        path = self.file(name)
        if path.stat().st_size > MAX_JSON_BYTES:
            raise self.error(f"{name} is larger than {MAX_JSON_BYTES // 2**20} MiB")
        try:
            content = json.loads(path.read_bytes().decode("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise self.error(f"{name} is no JSON: {error}") from error
        if not isinstance(content, dict):
            raise self.error(f"{name} holds a {type(content).__name__}, and should hold a mapping")
        content.pop(LEFT_TO_DEFAULTS, None)
        for key, value in _numbers(content):
            if not (math.isfinite(value) or key == MAY_BE_INFINITE):
                raise self.error(f"{name}: {key} is {value}")
        return content


def unreadable(path: Path) -> str:
    """Why `path` cannot be read as a file, in words that follow its name; empty where it can."""
    if path.is_symlink() and not path.exists():
        return "is a link to nothing"
    if not path.exists():
        return "is missing"
    if not path.is_file():
        return "is no file"
    if not os.access(path, os.R_OK):
        return "may not be read by this user"
    return "" if path.stat().st_size else "is empty"


def _numbers(content: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """All floats of a config by the key at its top."""
    for key, value in content.items():
        waiting = [value]
        while waiting:
            inner = waiting.pop()
            if isinstance(inner, dict):
                waiting.extend(inner.values())
            elif isinstance(inner, list):
                waiting.extend(inner)
            elif isinstance(inner, float):
                yield key, inner
