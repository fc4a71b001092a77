"""Checkpoints that exist or do not: written aside, synced, described by a manifest of sizes and hashes, renamed.

The state of a run is its optimizer step, the weights, the optimizer's state and nothing else: order, noise and learning
rate are functions of the step (see `order` and `optimizers`).
"""

import json
import os
import re
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from smpo.artefacts import hash_file, sync_folder, write_atomically

MANIFEST = "manifest.json"
STEP_FOLDER = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class TrainState:
    """All of a run's state after `step` optimizer steps.

    Attributes:
        step: optimizer steps done.
        tensors: file stem ("unet", "optimizer", "ema") -> name -> tensor.
        scalars: JSON-serialisable rest.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    scalars: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, state: TrainState, *, keep: int) -> Path:
    """Write `folder`/step-XXXXXXXX, unless it is there intact, and remove every half-written or surplus checkpoint.

    The newest `keep` up to this one stay. Those of later steps go: only damaged ones are ever resumed from behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover)
    aside, final = folder / f".tmp-{state.step:08d}", folder / f"step-{state.step:08d}"
    if final.exists() and damage(final) is None:  # a preempted run may ask for a step that has just been saved
        return final
    aside.mkdir()
    for stem, tensors in state.tensors.items():
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside / f"{stem}.safetensors")
    write_atomically(aside / "state.json", json.dumps({"step": state.step, **state.scalars}, sort_keys=True))
    files = sorted(aside.iterdir())
    for file in files:
        _sync_file(file)
    content = {file.name: {"bytes": file.stat().st_size, "sha256": hash_file(file)} for file in files}
    write_atomically(aside / MANIFEST, json.dumps(content, indent=1))
    if final.exists():
        shutil.rmtree(final)
    os.rename(aside, final)
    sync_folder(folder)
    found = checkpoints(folder)
    kept = [path for path in found if path.name <= final.name][:keep]
    for path in set(found) - set(kept):
        shutil.rmtree(path)
    return final


def load_checkpoint(folder: Path) -> TrainState | None:
    """The newest intact checkpoint in `folder`, or None; a damaged one is passed over with a warning."""
    for path in checkpoints(folder):
        complaint = damage(path)
        if complaint is None:
            scalars = json.loads((path / "state.json").read_text())
            tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
            return TrainState(scalars.pop("step"), tensors, scalars)
        warnings.warn(f"checkpoint {path} is damaged ({complaint}); falling back to the one before", stacklevel=2)
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoint folders, newest first."""
    if not folder.exists():
        return []
    return sorted((path for path in folder.iterdir() if STEP_FOLDER.fullmatch(path.name)), reverse=True)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None: every file must have the manifest's size and hash."""
    if not (path / MANIFEST).exists():
        return "no manifest"
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}
    except (ValueError, TypeError, KeyError, AttributeError):  # whatever a damaged manifest may hold
        return "unreadable manifest"
    for name, (size, digest) in expected.items():
        file = path / name
        if not file.exists():
            return f"{name} is missing"
        if file.stat().st_size != size or hash_file(file) != digest:
            return f"{name} differs from its manifest"
    return None


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
