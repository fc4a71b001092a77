"""How `smpo cost` prints an estimate, in lines of at most 100 characters, or as JSON."""

import dataclasses
import json
import textwrap
from collections.abc import Iterable

from smpo.core.errors import SmpoError
from smpo.cost.estimate import GIB, OVERHEAD_GIB, UTILISATION, Estimate, counts_of, estimate
from smpo.cost.measured import MeasuredHours
from smpo.cost.memory import Memory
from smpo.pipeline.config import Recipe

WIDTH = 100
MEMORY_PARTS = {
    "policy": "policy, weights", "reference": "reference, weights", "average": "moving average",
    "gradients": "gradients", "buckets": "gradients being exchanged", "optimizer": "optimizer state",
    "kept": "activations, kept for the backward", "temporary": "activations, passing",
    "update": "optimizer's step, in place of activations",
    "gathered": "gathered meanwhile", "inverting": "inverting network, whole, in place of activations",
}

ON_HOST = {MEMORY_PARTS[name] for name in ("policy", "reference", "average", "gradients", "optimizer", "update")}


def as_json(cost: Estimate, measured: MeasuredHours | None = None) -> str:
    """The whole record, its memory with its peak, and the hours at a measured rate; bytes, FLOPs and hours."""
    content = dataclasses.asdict(cost)
    if measured is not None:
        content["measured"] = dataclasses.asdict(measured)
    content["memory"] |= {"peak": cost.memory.peak, "host": cost.memory.host}
    content["example"]["nfe_no_grad"] = cost.example.nfe_no_grad
    return json.dumps(content, indent=1) + "\n"


def as_text(cost: Estimate, measured: MeasuredHours | None = None) -> str:
    """The record for a reader, with the hours at a measured rate."""
    several = cost.num_processes
    each = "a training process" if several == 1 else f"each of {several} training processes, {cost.split}"
    sections = {"Work": _work(cost), f"Memory of {each}, GiB": _memory(cost.memory), "Disk": _disk(cost)}
    hours = f"GPU-hours at {cost.utilisation:.0%} of the peak rate"
    parts = [f"{cost.name}: what it will cost. Nothing was run; {_shapes(cost)}"]
    parts += ["\n".join([title, *lines]) for title, lines in {**sections, hours: _hours(cost, measured)}.items()]
    return "\n\n".join(map(_wrapped, parts)) + "\n"


def as_comment(recipe: Recipe) -> str:
    """The cost of the recipe as YAML comments, or the reason why it is not known yet."""
    try:
        text = as_text(estimate(recipe, counts_of(recipe)))
    except SmpoError as error:
        text = f"Its cost is not known yet: {error}\n"
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


def _shapes(cost: Estimate) -> str:
    if cost.own_shapes:
        return "shapes are those of the model's own configurations."
    return "shapes are those of the public SD1.5 or SDXL, for the model is not a local folder."


def _work(cost: Estimate) -> list[str]:
    example, one = cost.example, cost.example.seen.removesuffix("s")
    forward = " + ".join(f"{value:.4g} {name}" for name, value in example.no_grad_parts.items()) or "none"
    total, caching = cost.flops_per_example * cost.examples, sum(cost.caching_flops)
    rest = "" if cost.examples >= cost.counts.pairs else (
        f"; training sees no more than {cost.examples / cost.counts.pairs:.0%} of them: data.max_rows reads fewer"
    )
    storing = {} if cost.storing is None else {
        "storing": f"{_flops(cost.storing.flops)}, once: {cost.storing.examples:,} examples of "
                   f"{cost.storing.evaluations:.4g} UNet evaluations, forward only",
    }
    return _rows({
        f"{example.seen} seen": f"{cost.examples:,}",
        f"UNet evaluations, one {one}": f"{example.nfe_grad:.4g} forward and backward; forward only: {forward}",
        "one UNet evaluation": f"{_flops(cost.forwards.unet)} forward",
        f"one {one}": _flops(cost.flops_per_example),
        "training": _flops(total), **storing,
        "caching": f"{_flops(caching)}, once for these pairs (a VAE encoding is {_flops(cost.forwards.vae)}){rest}",
    })


def _memory(memory: Memory) -> list[str]:
    sizes = {text: getattr(memory, name) for name, text in MEMORY_PARTS.items()}
    if memory.offloaded:
        sizes = {f"{text} (host memory)" if text in ON_HOST else text: size for text, size in sizes.items()}
    sizes |= {"peak": memory.peak, "peak in host memory": memory.host}
    return _rows({text: f"{size / GIB:8.2f}" for text, size in sizes.items() if size})


def _disk(cost: Estimate) -> list[str]:
    disk, counts = cost.disk, cost.counts
    return _rows({
        "pairs, unique prompts": f"{counts.pairs:,}, {counts.prompts:,} ({counts.source})",
        "cached latents": _bytes(disk.latents), "cached prompts": _bytes(disk.prompts),
        **({} if cost.storing is None else {"cached inversions": _bytes(cost.storing.bytes)}),
        "checkpoints": f"{_bytes(disk.checkpoints)}, the one being written included",
    })


def _hours(cost: Estimate, measured: MeasuredHours | None) -> list[str]:
    columns = ("caching", "training") if cost.storing is None else ("caching", "storing", "training")
    head = f"  {'':12}{''.join(f'{name:>10}' for name in columns)}{'GiB left':>10}   peak TFLOP/s"
    lines = [
        f"  {one.gpu.name:12}{''.join(f'{_short(getattr(one, name)):>10}' for name in columns)}"
        f"{_left(one.left_gib):>10}   {one.gpu.half_tflops:g} bf16, {one.gpu.float32_tflops:g} float32"
        for one in cost.hours
    ]
    assumed = ", ".join(f"{share:.0%} {family}" for family, share in UTILISATION.items())
    note = (
        f"The share of the peak rate is assumed, not measured: the default ({assumed}) is what the paper's "
        f"GPU-hours imply; --utilisation sets it. GiB left allows {OVERHEAD_GIB:g} GiB for CUDA itself, assumed. "
        "Reading, scoring and generating images are not counted."
    )
    if measured is None:
        return [head, *lines, note]
    cells = "".join(f"{'-' if name == 'caching' else _short(getattr(measured, name)):>10}" for name in columns)
    row = f"  {'as measured':12}{cells}{'-':>10}   {measured.flop_per_s / 1e12:.4g}, achieved"
    return [head, *lines, row, note, _measured_note(measured)]


def _measured_note(measured: MeasuredHours) -> str:
    steps = f"{measured.steps} steps" if measured.steps > 1 else "one step"
    note = (
        f"As measured: wall-clock hours on the devices of the run in {measured.folder}, all together, at its own rate "
        f"(the median of {steps}); checkpoints and samples are not counted."
    )
    differs = ", ".join(f"{key}={there} (here {here})" for key, (there, here) in measured.differs.items())
    return f"{note} Its rate may be another, for that run had {differs}." if differs else note


def _short(hours: float) -> str:
    return f"{hours:.3g}" if hours >= 0.01 else "< 0.01"


def _left(gib: float) -> str:
    return f"{gib:.1f}" if gib >= 0 else f"no, {gib:.1f}"


def _rows(cells: dict[str, str]) -> list[str]:
    width = max(map(len, cells)) + 2
    return [f"  {name:{width}}{value}" for name, value in cells.items()]


def _wrapped(part: str) -> str:
    """Lines that are too long go on in the next, indented as their values are."""
    lines: Iterable[list[str]] = (
        textwrap.wrap(line, WIDTH, subsequent_indent="    " if line.startswith(" ") else "", drop_whitespace=True)
        if len(line) > WIDTH else [line]
        for line in part.split("\n")
    )
    return "\n".join(piece for pieces in lines for piece in pieces)


def _flops(count: float) -> str:
    for unit, name in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count / 1e6:.4g} MFLOP"


def _bytes(count: int) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count / 1e3:.4g} kB"
