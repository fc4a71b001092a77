"""Probes of the machine: folders, processes, devices, packages, disk, memory."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from smpo.core.artefacts import stage_of
from smpo.core.errors import ConfigError
from smpo.core.processes import local_device, this_process
from smpo.cost.estimate import GIB, OVERHEAD_GIB, Estimate, counts_of, estimate
from smpo.objectives import OBJECTIVES
from smpo.pipeline.config import Recipe
from smpo.pipeline.stages import artefacts_of, is_complete, stages_of
from smpo.preflight.data import num_rows
from smpo.preflight.findings import Note, Outcome
from smpo.training.parallel import from_environment
from smpo.training.policy.optimizers import build_optimizer
from smpo.training.tracking import check_trackers

COMPILERS = ("c++", "g++", "clang++", "cl")
FULL_SIZE_PX = 256  # a model of smaller images can be trained on a CPU
GB = 1e9


def folders(recipe: Recipe) -> Iterator[Note]:
    """Check that every folder can be written, and is empty or holds the artefact of its stage."""
    for stage in stages_of(recipe):
        check_writable(recipe.folder(stage))
        for folder, made_by in artefacts_of(recipe, stage):
            owner = stage_of(folder)
            if owner not in (None, made_by):
                raise ConfigError(f"{folder} is an artefact of `smpo {owner}`; set paths.{stage} to another folder")
    check_writable(recipe.store)
    yield Note(f"{recipe.workdir} and {recipe.store} can be written")


def check_writable(folder: Path) -> None:
    """Raise ConfigError unless files can be written in `folder`, which need not exist yet; nothing is left there."""
    try:
        os.lstat(folder)  # raises OSError if a name is too long or a file is in the way
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"{folder} cannot be a folder ({error.strerror}); choose another path") from error
    parent = existing_parent(folder)
    if not parent.is_dir():
        raise ConfigError(f"{folder} cannot be a folder: {parent} is a file; choose another path")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ConfigError(f"{parent} cannot be written ({error.strerror}); choose another path for {folder}") from error


def existing_parent(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def size_of(folder: Path) -> int:
    """Size of all files below `folder`, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def processes(recipe: Recipe) -> Iterator[Note]:
    """Check that the processes can share the batch, and that the launcher's settings are supported."""
    count = this_process().world_size
    accumulation = recipe.training.accumulation(count)
    from_environment(recipe.training)
    each = f"{accumulation} x {recipe.training.micro_batch_size} {OBJECTIVES.build(recipe.objective).unit}"
    yield Note(f"{count} training together, {each} a step on each")


def devices(recipe: Recipe) -> Iterator[Note]:
    """Check that every device of the recipe exists and supports the precision of the training."""
    default = local_device()
    scorers = [*recipe.pair_scorers.values(), *recipe.evaluation.scorers.values()]
    named = [recipe.generation.device, *(scorer.get("device", "auto") for scorer in scorers)]
    named += [recipe.sampling.device] if recipe.sampling else []
    for name in {default if name == "auto" else name for name in named} | {default}:
        check_device(name)
    precision = recipe.training.mixed_precision
    kind = torch.device(default).type
    if precision == "fp16" and kind == "cpu":
        raise ConfigError("training.mixed_precision=fp16 needs a GPU, and there is none; set bf16 or no")
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"training.mixed_precision=bf16: {device_name()} computes no bf16; set fp16 or no")
    yield Note(f"{device_name()}, training in {'float32' if precision == 'no' else precision}")
    if kind == "cpu" and recipe.cache.resolution >= FULL_SIZE_PX:
        yield Note("no GPU was found: full-size models take days on a CPU", Outcome.WARNING)


def check_device(name: str) -> None:
    """Raise ConfigError unless numbers can be computed on the device `name`, which rules out the meta device."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown, not compiled in, not there, or meta
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device '{name}' cannot be used ({reason}); set auto, cpu or another device") from error


def device_name() -> str:
    """The name of the GPU, or of the kind of device."""
    kind = torch.device(local_device()).type
    return torch.cuda.get_device_name() if kind == "cuda" else kind.upper()


def packages(recipe: Recipe) -> Iterator[Note]:
    """Check that the packages for optimizer, compiler and trackers are installed."""
    build_optimizer([nn.Parameter(torch.zeros(1))], recipe.training.optimizer)
    check_trackers(recipe.training.trackers)
    if recipe.training.compile and not any(map(shutil.which, COMPILERS)):
        raise ConfigError("training.compile=true needs a C++ compiler, found none; install g++, or set it to false")
    yield Note(f"optimizer {recipe.training.optimizer.name}, trackers {', '.join(recipe.training.trackers) or 'none'}")


def cost(recipe: Recipe) -> Iterator[Note]:
    """Check that caching and training fit on the disk and into memory, by the estimate of `smpo cost`."""
    rows = num_rows(recipe)
    needs = estimate(recipe, counts_of(recipe, None if rows is None else (rows, rows)))
    yield from _disk(recipe, needs)
    yield _memory(needs)


def _disk(recipe: Recipe, needs: Estimate) -> Iterator[Note]:
    """The free space of each disk, compared with what the unfinished stages will write there."""
    sizes = {
        "cache": needs.disk.latents + needs.disk.prompts,
        "invert": needs.storing.bytes if needs.storing else 0,
        "train": needs.disk.checkpoints + needs.memory.policy,
    }
    by_disk: dict[int, list[tuple[str, int, Path]]] = {}
    for stage, size in sizes.items():
        if size and not is_complete(recipe, stage):
            folder = recipe.folder(stage)
            parent, left = existing_parent(folder), max(0, size - size_of(folder))
            by_disk.setdefault(os.stat(parent).st_dev, []).append((stage, left, parent))
    for entries in by_disk.values():
        place, total = entries[0][2], sum(size for _, size, _ in entries)
        free = shutil.disk_usage(place).free
        parts = ", ".join(f"{stage} {size / GB:.3g} GB" for stage, size, _ in entries)
        if total > free:
            raise ConfigError(
                f"{place} has {free / GB:.3g} GB free, and the run writes {total / GB:.3g} GB ({parts}); free some, "
                "set paths to another disk, or set data.max_rows or cache.dtype=float16"
            )
        yield Note(f"{parts} to be written, {free / GB:.3g} GB free at {place}")


def _memory(needs: Estimate) -> Note:
    """The memory of the device, compared with what training needs."""
    needed = needs.memory.peak / GIB + OVERHEAD_GIB
    if torch.device(local_device()).type == "cuda":
        there = torch.cuda.mem_get_info()[1] / GIB
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    text = f"training takes about {needed:.2f} of the {there:.1f} GiB of the {device_name()}"
    if needed <= there:
        return Note(text)
    ways_out = "lower training.micro_batch_size, set training.gradient_checkpointing=true, or train a LoRA"
    return Note(f"{text}; {ways_out}", Outcome.WARNING)
