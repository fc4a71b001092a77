"""One case on a device: its rate, the memory it took, and what `smpo cost` had said of it."""

import gc
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.released_step import ReleasedOptions
from benchmarks.timing import Case, Repetition, alternate, ratios, summary
from benchmarks.workload import Workload, released_stepping, stepping
from smpo.cost.estimate import GIB, Estimate, counts_of, estimate
from smpo.cost.gpus import GPUS
from smpo.models.parts import posterior_moments

RELEASED = {"sd": ReleasedOptions(grid=5, beta=2000.0), "sdxl": ReleasedOptions(grid=10, beta=5000.0)}
SKIPPED = {"failed": "left out: no time was left"}


@dataclass(frozen=True)
class Bench:
    """Where the cases of one model run.

    Attributes:
        work: its pairs, cached.
        accelerator: with the precision of all cases.
        matmul: FLOP/s of the device's matrix products in this precision, measured before.
        repetitions: turns that count.
        until: when to stop, on `time.monotonic`'s clock.
    """

    work: Workload
    accelerator: Accelerator
    matmul: float
    repetitions: int
    until: float

    @property
    def released(self) -> str:
        """The override that asks for the released step's mathematics."""
        grid = RELEASED[self.work.plan.kind].grid
        return f"noising={{name: released, inversion_steps: {grid - 1}, predictions: 2, jitter: 0.0}}"

    def is_late(self) -> bool:
        """Whether no further case should start."""
        return time.monotonic() > self.until


def pairs_a_step(micro_batch: int, batch: int) -> tuple[str, str]:
    """Overrides: an optimizer step of at least two micro-batches, so that gradients are held while others flow."""
    return f"training.micro_batch_size={micro_batch}", f"training.batch_size={max(batch, 2 * micro_batch)}"


def alone(bench: Bench, *changes: str, warm_up: int = 1) -> dict[str, Any]:
    """Rate and peak memory of a recipe with `changes`, beside their estimate; what failed and why, if it did."""
    if bench.is_late():
        return SKIPPED
    found = foreseen(bench, *changes)
    forget(bench)
    try:
        case = Case("", stepping(bench.work, bench.work.run(*changes), bench.accelerator))
        turns = alternate([case], repetitions=bench.repetitions, device=bench.work.device, warm_up=warm_up)[""]
        return {**rate(bench, turns), **found, **peak(bench)}
    except torch.cuda.OutOfMemoryError as error:
        return {**too_large(error), **found, **peak(bench)}


def beside_released(bench: Bench, *changes: str) -> dict[str, Any]:
    """A recipe with `changes` and the released step in turns, over the same examples; both on the device at once."""
    if bench.is_late():
        return SKIPPED
    forget(bench)
    try:
        work, own = bench.work, bench.work.run(*changes)
        theirs = work.run(*changes, bench.released, "training.cached_inversion_epochs=null")
        options = RELEASED[work.plan.kind]
        turns = alternate([
            Case("released", released_stepping(work, theirs, bench.accelerator, options)),
            Case("ours", stepping(work, own, bench.accelerator)),
        ], repetitions=bench.repetitions, device=work.device)
        speedup = ratios(*([turn.per_s() for turn in turns[name]] for name in ("ours", "released")))
        return {"released": rate(bench, turns["released"]), **rate(bench, turns["ours"]), "speedup": speedup}
    except torch.cuda.OutOfMemoryError as error:
        return too_large(error)


def rate(bench: Bench, turns: Sequence[Repetition]) -> dict[str, Any]:
    """Pairs a second, work of a pair, and the useful FLOP/s as a share of the matmul rate and of the maker's peak."""
    counts, pairs = turns[0].counts, turns[0].counts["pairs"]
    useful = summary([turn.per_s("flops") for turn in turns])
    shares = {"share_of_matmul": {key: value / bench.matmul for key, value in useful.items()}}
    for gpu in GPUS:
        if set(gpu.name.split()) - {"SXM", "80GB"} <= set(device_name(bench).replace("-", " ").split()):
            shares["share_of_peak"] = {key: value / (gpu.half_tflops * 1e12) for key, value in useful.items()}
    return {
        "pairs_per_s": summary([turn.per_s() for turn in turns]), **shares,
        "evaluations_a_pair": {kind: counts[kind] / pairs for kind in ("trained", "free")},
        "useful_tflop_a_pair": counts["flops"] / pairs / 1e12,
    }


def too_large(error: torch.cuda.OutOfMemoryError) -> dict[str, str]:
    """The row of a case that does not fit."""
    return {"failed": f"out of memory: {str(error).splitlines()[0][:160]}"}


def device_name(bench: Bench) -> str:
    """The GPU's name; none on a CPU."""
    device = bench.work.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def foreseen(bench: Bench, *changes: str) -> dict[str, Any]:
    """What `smpo cost` tells of the recipe: memory, and FLOPs of a pair with what checkpointing repeats."""
    recipe = bench.work.recipe(*changes)
    told: Estimate = estimate(recipe, counts_of(recipe))
    return {"estimated": {"peak_gib": told.memory.peak / GIB, "tflop_a_pair": told.flops_per_example / 1e12}}


def peak(bench: Bench) -> dict[str, Any]:
    """The most GPU memory that tensors took, and that PyTorch held, since `forget`; nothing on a CPU."""
    device = bench.work.device
    if device.type != "cuda":
        return {}
    taken = {"peak_gib": torch.cuda.max_memory_allocated, "held_gib": torch.cuda.max_memory_reserved}
    return {name: measure(device) / GIB for name, measure in taken.items()}


def forget(bench: Bench) -> None:
    """Give back what earlier cases held on the device, and begin to count its peak anew."""
    bench.accelerator.free_memory()
    gc.collect()
    if bench.work.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.work.device)


def caching_rates(bench: Bench, *, batches: Sequence[int]) -> dict[str, Any]:
    """Images a second through the VAE in both types that the cache offers for it, and prompts through the encoders."""
    from_batches: dict[str, Any] = {}
    work, side = bench.work, bench.work.plan.resolution
    for dtype, batch in itertools.product((torch.float32, torch.bfloat16), batches):
        from_batches[f"VAE, {str(dtype)[6:]}, {batch} images"] = vae_rate(bench, dtype, batch, side)
    prompts = [f"a thing, number {number}" for number in range(64)]

    def encode() -> dict[str, float]:
        work.family.encode_prompts(prompts, work.device)
        return {"items": len(prompts)}

    turns = alternate([Case("", encode)], repetitions=bench.repetitions, device=work.device)[""]
    return {**from_batches, "text encoders, float32, 64 prompts": {"per_s": summary([t.per_s("items") for t in turns])}}


def vae_rate(bench: Bench, dtype: torch.dtype, batch: int, side: int) -> dict[str, Any]:
    """Images a second of `posterior_moments`, as the cache stage calls it."""
    if bench.is_late():
        return SKIPPED
    forget(bench)
    try:
        vae = bench.work.family.load_vae(dtype).to(bench.work.device)
        images = torch.rand(batch, 3, side, side) * 2 - 1

        def encode() -> dict[str, float]:
            posterior_moments(vae, images)
            return {"items": batch}

        turns = alternate([Case("", encode)], repetitions=bench.repetitions, device=bench.work.device)[""]
        return {"per_s": summary([turn.per_s("items") for turn in turns]), **peak(bench)}
    except torch.cuda.OutOfMemoryError as error:
        return too_large(error)
