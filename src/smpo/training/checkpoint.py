"""Checkpoints that exist or do not: written aside, synced, described by a manifest of sizes and hashes, renamed.

The state of a run is its optimizer step, the weights, the optimizer's state and nothing else: order, noise and learning
rate are functions of the step (see `sources.order` and `policy.optimizers`).

A file holds whole tensors; where processes keep their rows of each, every process writes its own, and reading puts them
together, tensor by tensor when it is asked for, on any number of processes.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from smpo.core.artefacts import fingerprint, hash_file, sync_folder, write_atomically
from smpo.core.errors import StaleError
from smpo.core.processes import Process

MANIFEST, STATE = "manifest.json", "state.json"
POLICY = "policy"  # stem of what is trained
STEMS = ("optimizer", POLICY)  # of the tensors that every run has
OLD_POLICY = "unet*.safetensors"  # before smpo 0.2
STEP_FOLDER = re.compile(r"step-(\d{8})")
SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}(?P<ending>\.safetensors)?")

Gather = Callable[[Any], list[Any]]
"""What each process gives -> what all gave, by rank, on every process."""


@dataclass(frozen=True)
class TrainState:
    """All of a run's state after `step` optimizer steps.

    Attributes:
        step: optimizer steps done.
        tensors: file stem (POLICY, "optimizer", "ema") -> name -> tensor, or this process's rows of it.
        scalars: JSON-serialisable rest.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    scalars: dict[str, Any] = field(default_factory=dict)


class Shards(Mapping[str, Tensor]):
    """Replicated tensors out of the rows that each process has written, read when asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Take the files in the order of their processes."""
        self._files = [safe_open(file, "pt") for file in files]
        self._names = [frozenset(file.keys()) for file in self._files]

    def __getitem__(self, name: str) -> Tensor:
        """All rows; a tensor that only the main process has written was never split."""
        parts = [file.get_tensor(name) for file, names in zip(self._files, self._names, strict=True) if name in names]
        if not parts:
            raise KeyError(name)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names[0]))  # the main process writes its rows of all

    def __len__(self) -> int:
        return len(self._names[0])


def save_checkpoint(
    folder: Path, state: TrainState, *, keep: int, process: Process | None = None, gather: Gather = lambda one: [one]
) -> Path:
    """Write `folder`/step-XXXXXXXX, unless it is there intact, and remove every half-written or surplus checkpoint.

    The newest `keep` up to this one stay. Those of later steps go: only damaged ones are ever resumed from behind.

    Args:
        folder: of all checkpoints.
        state: whole, and written by this process alone; or its part.
        keep: how many.
        process: whose rows `state` holds, where every process writes its own; all call.
        gather: collects from all of them.
    """
    aside, final = folder / f".tmp-{state.step:08d}", folder / f"step-{state.step:08d}"
    main = process is None or process.is_main
    if not gather(main and _begin(folder, aside, final))[0]:
        return final
    ending = "" if process is None else f"-{process.rank + 1:05d}-of-{process.world_size:05d}"
    content = {
        name: entry for part in gather(_write(aside, state.tensors, ending=ending)) for name, entry in part.items()
    }
    if main:
        write_atomically(aside / STATE, json.dumps({"step": state.step, **state.scalars}, sort_keys=True))
        files = content | _described([aside / STATE])
        write_atomically(aside / MANIFEST, _manifest(files))
        _finish(folder, aside, final, keep=keep)
    gather(None)  # nobody goes on before it stands
    return final


def load_checkpoint(folder: Path) -> TrainState | None:
    """The newest intact checkpoint in `folder`, or None; a damaged one is passed over with a warning.

    Raises:
        StaleError: it was written by a version that named its files otherwise.
    """
    for path in checkpoints(folder):
        if any(path.glob(OLD_POLICY)):
            raise StaleError(f"checkpoint {path} was written by smpo 0.1; go on with that version, or train in another "
                             "folder")
        complaint = damage(path)
        if complaint is None:
            scalars = json.loads((path / STATE).read_text())
            return TrainState(scalars.pop("step"), _tensors(path), scalars)
        warnings.warn(f"checkpoint {path} is damaged ({complaint}); falling back to the one before", stacklevel=2)
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoint folders, newest first."""
    if not folder.exists():
        return []
    return sorted((path for path in folder.iterdir() if STEP_FOLDER.fullmatch(path.name)), reverse=True)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None.

    Its manifest must be as it was written and name the state and the tensors, every file must have the manifest's size
    and hash, no other tensors may lie there, and the state must be of the step that the folder is named after.
    """
    if not (path / MANIFEST).exists():
        return "no manifest"
    try:
        manifest = (path / MANIFEST).read_text()
        files = json.loads(manifest)["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (ValueError, TypeError, KeyError, AttributeError):  # whatever a damaged manifest may hold
        return "unreadable manifest"
    if manifest != _manifest(files):
        return "its manifest is not the one that was written"
    found = {file.name for file in path.glob("*.safetensors")}
    unknown, needed = sorted(found - expected.keys()), {STATE, *(f"{stem}.safetensors" for stem in STEMS)}
    if unknown:
        return f"{unknown[0]} is not in its manifest"
    if not needed <= {SHARD.sub(r"\g<stem>\g<ending>", name) for name in expected}:
        return f"its manifest does not name {' and '.join(sorted(needed))}"
    for name, (size, digest) in expected.items():
        file = path / name
        if not file.exists():
            return f"{name} is missing"
        if file.stat().st_size != size or hash_file(file) != digest:
            return f"{name} differs from its manifest"
    step = json.loads((path / STATE).read_text()).get("step")
    return None if path.name == f"step-{step:08d}" else f"it is the state of step {step}"


def _manifest(files: Mapping[str, Any]) -> str:
    """The manifest's text: sizes and hashes of the files, and a digest of these."""
    return json.dumps({"files": files, "seal": fingerprint(files)}, indent=1)


def _begin(folder: Path, aside: Path, final: Path) -> bool:
    """Make room for a checkpoint; False where it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover)
    if final.exists() and damage(final) is None:  # a preempted run may ask for a step that has just been saved
        return False
    aside.mkdir()
    return True


def _write(aside: Path, tensors: Mapping[str, Mapping[str, Tensor]], *, ending: str) -> dict[str, dict[str, Any]]:
    """Write a file of each stem; returns their part of the manifest."""
    files = []
    for stem, named in tensors.items():
        files.append(aside / f"{stem}{ending}.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in named.items()}, files[-1])
    return _described(files)


def _described(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Sizes and hashes of files that are safely on disk."""
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return {file.name: {"bytes": file.stat().st_size, "sha256": hash_file(file)} for file in files}


def _finish(folder: Path, aside: Path, final: Path, *, keep: int) -> None:
    """Let a complete folder be the checkpoint; the surplus goes."""
    if final.exists():
        shutil.rmtree(final)
    os.rename(aside, final)
    sync_folder(folder)
    found = checkpoints(folder)
    kept = [path for path in found if path.name <= final.name][:keep]
    for path in set(found) - set(kept):
        shutil.rmtree(path)


def _tensors(path: Path) -> dict[str, Mapping[str, Tensor]]:
    """File stem -> name -> whole tensor."""
    tensors: dict[str, Mapping[str, Tensor]] = {}
    shards: dict[str, list[Path]] = {}
    for file in sorted(path.glob("*.safetensors")):
        shard = SHARD.fullmatch(file.stem)
        if shard:
            shards.setdefault(shard["stem"], []).append(file)
        else:
            tensors[file.stem] = load_file(file)
    return tensors | {stem: Shards(files) for stem, files in shards.items()}
