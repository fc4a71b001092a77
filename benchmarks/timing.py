"""What every benchmark of steps shares: cases in turns, medians with their spread, the machine, JSON and tables."""

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import torch
import transformers
from torch import Tensor

from smpo.core.artefacts import write_atomically

Step = Callable[[], Mapping[str, float]]
"""Work to be timed; returns what it counted, such as {"pairs": 64}."""


@dataclass(frozen=True)
class Case:
    """Something to be timed.

    Attributes:
        name: of its row.
        work: done once a repetition.
    """

    name: str
    work: Step


@dataclass(frozen=True)
class Repetition:
    """One turn of a case: wall-clock and this process's CPU time, s, and what the work counted."""

    wall_s: float
    cpu_s: float
    counts: Mapping[str, float]

    def per_s(self, name: str = "pairs") -> float:
        """Counted things a second of wall-clock time."""
        return self.counts[name] / self.wall_s

    def per_cpu_s(self, name: str = "pairs") -> float:
        """Counted things a second of CPU time."""
        return self.counts[name] / self.cpu_s


def alternate(
    cases: Sequence[Case], *, repetitions: int, device: torch.device, warm_up: int = 1
) -> dict[str, list[Repetition]]:
    """Every case's repetitions, in turns, so that what else goes on in the machine meets all alike.

    Args:
        cases: with different names.
        repetitions: kept of each case, after `warm_up` that are not.
        device: waited for before and after each turn.
        warm_up: turns for caches, allocators and compilers.
    """
    kept: dict[str, list[Repetition]] = {case.name: [] for case in cases}
    for turn in range(warm_up + repetitions):
        for case in cases:
            repetition = timed(case.work, device)
            if turn >= warm_up:
                kept[case.name].append(repetition)
    return kept


def timed(work: Step, device: torch.device) -> Repetition:
    """One turn of `work`, with nothing left to be done on `device`."""
    wait_for(device)
    wall, cpu = time.perf_counter(), time.process_time()
    counts = work()
    wait_for(device)
    return Repetition(time.perf_counter() - wall, time.process_time() - cpu, counts)


def wait_for(device: torch.device) -> None:
    """Return when all that was sent to `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def ratios(values: Sequence[float], to: Sequence[float]) -> dict[str, float]:
    """Median and range of the ratios of two cases, turn by turn."""
    return summary([value / other for value, other in zip(values, to, strict=True)])


def matmul_rate(device: torch.device, dtype: torch.dtype, *, sides: Sequence[int], repeats: int = 5) -> dict[str, Any]:
    """FLOP/s of square matrix products (2 n^3 each): of every size the median of `repeats`, and the best of them."""
    rates = {}
    for side in sides:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        count = max(1, int(2e12 * (100 if device.type == "cuda" else 0.01) / (2 * side**3)))  # 0.1 to 1 s a repeat

        def multiply(a: Tensor = a, b: Tensor = b, count: int = count) -> dict[str, float]:
            for _ in range(count):
                a @ b
            return {"flops": 2.0 * a.shape[0] ** 3 * count}

        turns = alternate([Case("matmul", multiply)], repetitions=repeats, device=device)["matmul"]
        rates[str(side)] = statistics.median(turn.per_s("flops") for turn in turns)
    return {"dtype": str(dtype).removeprefix("torch."), "flop_per_s": max(rates.values()), "by_side": rates}


def machine(device: torch.device) -> dict[str, Any]:
    """Where and with what a measurement is made."""
    about = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
        "accelerate": accelerate.__version__, "python": platform.python_version(),
    }
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        about |= {"device_memory_gib": round(memory, 1), "cuda": torch.version.cuda}
    return about


def _processor() -> str:
    """The CPU's name; Linux tells it in /proc/cpuinfo alone."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


class Results:
    """A JSON file that is written anew after every section, so that a killed benchmark keeps what it has.

    Sections that are there already stay, if they were measured with the same software on the same device.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path, where = path, machine(device)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if path.exists() else {}
        self.content: dict[str, Any] = before if before.get("machine") == where else {"machine": where, "measured": {}}

    def put(self, section: str, value: Any) -> None:
        """Write `value` as this section; the time and the load of the machine are noted beside it."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
        self.content[section] = value
        self.content["measured"][section] = {"date": now, "load_average": round(os.getloadavg()[0], 2)}
        write_atomically(self.path, json.dumps(self.content, indent=1) + "\n")


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left, all others to the right; columns in line for a terminal."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "| " + " | ".join(cells) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(heads), "| " + " | ".join(rule) + " |", *map(line, rows)])


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1e}"


def spread(values: Mapping[str, float]) -> str:
    """Such as "12.3 [11.9, 12.6]"."""
    return f"{number(values['median'])} [{number(values['lowest'])}, {number(values['highest'])}]"
