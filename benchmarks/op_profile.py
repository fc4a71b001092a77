"""Where a step's time goes, by kind of operation (torch.profiler)."""

from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import Step, timed

KINDS = (  # the first whose fragment occurs in an operation's name
    ("attention", ("scaled_dot_product", "flash_attention", "efficient_attention")),
    ("convolution", ("conv",)),
    ("matrix product", ("::mm", "addmm", "bmm", "::linear")),
    ("normalisation", ("group_norm", "layer_norm", "GroupNorm", "LayerNorm", "batch_norm")),
    ("copy, index, cat", ("copy", "cat", "index", "clone", "contiguous", "gather", "scatter", "fill", "zero")),
    ("optimizer", ("_foreach", "fused_adam")),
)
OTHER = "other, mostly elementwise"


def kind_of(operation: str) -> str:
    """The kind of an operation such as "aten::addmm"."""
    return next((kind for kind, parts in KINDS if any(part in operation for part in parts)), OTHER)


def profiled(step: Step, device: torch.device, *, top: int = 12) -> dict[str, Any]:
    """Time of one call of `step` by kind of operation, and its costliest operations.

    On a CPU an operation's time is that of its kernel and its dispatch; the rest of the wall-clock time is Python and
    the profiler. On a GPU it is that of its kernels; the rest is the time in which the device had nothing to do.

    Returns:
        `seconds` of wall-clock time under the profiler and without it (`seconds_plain`); `shares` of the former by
        kind, which add up to one with "outside operations"; `operations` as (name, calls, share).
    """
    plain = timed(step, device).wall_s
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        seconds = timed(step, device).wall_s
    clock = "self_device_time_total" if on_gpu else "self_cpu_time_total"  # microseconds
    operations = [  # a GPU's kernels have rows of their own as well: counted once, with the operations that start them
        event for event in recorded.key_averages()
        if event.device_type == DeviceType.CPU and not event.is_user_annotation
    ]
    found = {event.key: (event.count, getattr(event, clock) / 1e6 / seconds) for event in operations}
    shares: dict[str, float] = {}
    for name, (_, share) in found.items():
        shares[kind_of(name)] = shares.get(kind_of(name), 0.0) + share
    shares["outside operations"] = max(0.0, 1 - sum(shares.values()))
    ranked = sorted(found.items(), key=lambda item: -item[1][1])[:top]
    return {
        "seconds": seconds, "seconds_plain": plain,
        "shares": dict(sorted(shares.items(), key=lambda item: -item[1])),
        "operations": [{"name": name, "calls": calls, "share": share} for name, (calls, share) in ranked],
    }
