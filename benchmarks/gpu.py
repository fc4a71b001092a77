"""Speed and memory of training, caching and scoring on one CUDA device, at the true shapes of SD1.5 and SDXL.

    python -m benchmarks.gpu --out benchmarks/results                   # SD1.5 at 512 px, SDXL at 1024 px
    python -m benchmarks.gpu --quick --out benchmarks/results           # the same in about ten minutes, fewer cases
    python -m benchmarks.gpu --device cpu --model tiny --quick          # does the code run? on any machine

bf16 autocast throughout, random weights. Each section is written to gpu-MODEL.json as soon as it is measured; a case
that does not fit into the device's memory is told as such. Nothing is fetched.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks import scoring
from benchmarks.gpu_cases import Bench, alone, beside_released, caching_rates, forget, pairs_a_step
from benchmarks.op_profile import profiled
from benchmarks.timing import Results, markdown, matmul_rate, number
from benchmarks.workload import SHAPES, Plan, accelerator_on, make_workload, stepping
from smpo.rewards.options import ScoringOptions

QUICK_S = 540  # of the ten minutes, without the start of Python and the last case


@dataclass(frozen=True)
class Size:
    """How much is measured of a model.

    Attributes:
        pairs: of an optimizer step, at least.
        micro_batch: of the comparison and of all that is not about it.
        micro_batches: of their section.
        checkpointing: of the comparison.
    """

    pairs: int
    micro_batch: int
    micro_batches: tuple[int, ...]
    checkpointing: bool


SIZES = {
    "sd15": Size(32, 16, (1, 2, 4, 8, 16, 32, 64), checkpointing=False),
    "sdxl": Size(8, 4, (1, 2, 4, 8), checkpointing=True),
    "tiny": Size(2, 1, (1, 2), checkpointing=False),
    "tiny-sdxl": Size(2, 1, (1, 2), checkpointing=True),
}
ADAPTERS = "training.lora={rank: 32}"
ADAMW = "training.optimizer.name=adamw"
COMPILED = "training.compile=true"
OPTIONS = {  # option of the recipe -> what is set beside the plain recipe
    "plain": (),
    "LoRA of rank 32": (ADAPTERS, ADAMW),
    "channels last": ("training.channels_last=true",),
    "selective checkpointing": ("training.gradient_checkpointing=selective",),
    "AdamW": (ADAMW,),
    "AdamW, fused": (ADAMW, "training.optimizer.fused=true"),
    "compiled": (COMPILED,),
    "compiled, channels last": (COMPILED, "training.channels_last=true"),
}


def comparison(bench: Bench, size: Size, quick: bool) -> dict[str, Any]:
    """Our recipes in turns with the released step."""
    basic = plain(size)
    cases = {
        "ours, same mathematics": (bench.released,),
        "the paper's recipe: ReNoise, at most 9 steps": (),
        "cached inversions, 2 of each pair": ("noising.network=reference", "training.cached_inversion_epochs=2"),
        "chained inversion, 4 timesteps a chain": ("noising={name: chained, chain_length: 4}", *chains(size)),
        "no inversion: DPO": ("noising={name: forward}",),
    }
    chosen = list(cases)[:3] if quick else list(cases)
    return {name: beside_released(bench, *basic, *cases[name]) for name in chosen}


def memory(bench: Bench, size: Size, quick: bool) -> dict[str, Any]:
    """Peak memory of full and LoRA training, with and without checkpointing, by micro-batch."""
    found = {}
    for micro_batch in (1,) if quick else (1, 4):
        for way, changes in {"full": (), "LoRA of rank 32": (ADAPTERS, ADAMW)}.items():
            for checkpointing in ("true", "false"):
                name = f"{way}, micro-batch {micro_batch}, checkpointing {checkpointing}"
                basic = *pairs_a_step(micro_batch, 2), f"training.gradient_checkpointing={checkpointing}"
                found[name] = alone(bench, *basic, *changes)
    return found


def micro_batches(bench: Bench, size: Size, quick: bool) -> dict[str, Any]:
    """The paper's recipe at growing micro-batches, as far as memory reaches."""
    chosen = size.micro_batches[::2] if quick else size.micro_batches
    return {str(n): alone(bench, *plain(size), *pairs_a_step(n, size.pairs)) for n in chosen}


def inversion_steps(bench: Bench, size: Size, quick: bool) -> dict[str, Any]:
    """The paper's recipe at other numbers of steps (its Table 4)."""
    chosen = (4, 9) if quick else (2, 4, 9, 19)
    return {str(n): alone(bench, *plain(size), f"noising.inversion_steps={n}") for n in chosen}


def options(bench: Bench, size: Size, quick: bool) -> dict[str, Any]:
    """The paper's recipe with each option that is about speed; a CPU takes too long to compile."""
    chosen = {name: set_ for name, set_ in OPTIONS.items() if bench.work.device.type == "cuda" or COMPILED not in set_}
    return {name: alone(bench, *plain(size), *changes, warm_up=2) for name, changes in chosen.items()}


def caching(bench: Bench, size: Size, quick: bool) -> dict[str, Any]:
    """What `smpo cache` asks of the networks."""
    return caching_rates(bench, batches=(1, 8) if quick else (1, 4, 8, 16))


def profile(bench: Bench, size: Size, quick: bool) -> dict[str, Any]:
    """Where the time of the paper's step goes."""
    forget(bench)
    step = stepping(bench.work, bench.work.run(*plain(size)), bench.accelerator)
    step()
    return profiled(step, bench.work.device, top=25)


def plain(size: Size) -> tuple[str, ...]:
    """The overrides of the comparison."""
    checkpointing = str(size.checkpointing).lower()
    return *pairs_a_step(size.micro_batch, size.pairs), f"training.gradient_checkpointing={checkpointing}"


def chains(size: Size) -> tuple[str, ...]:
    """Micro-batches that hold whole chains of four."""
    return pairs_a_step(max(4, size.micro_batch), size.pairs)


SECTIONS: dict[str, Callable[[Bench, Size, bool], dict[str, Any]]] = {
    "comparison": comparison, "memory": memory, "micro_batches": micro_batches, "options": options,
    "inversion_steps": inversion_steps, "caching": caching, "profile": profile,
}


def table(rows: Mapping[str, Any], head: str) -> str:
    """One line a case, with the columns that any of them has."""
    columns: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "pairs/s": lambda row: row["pairs_per_s"]["median"], "per s": lambda row: row["per_s"]["median"],
        "x released": lambda row: row["speedup"]["median"],
        "% of matmul rate": lambda row: 100 * row["share_of_matmul"]["median"],
        "peak GiB": lambda row: row["peak_gib"], "estimated GiB": lambda row: row["estimated"]["peak_gib"],
    }

    def cell(row: Mapping[str, Any], column: str) -> str:
        try:
            return number(columns[column](row))
        except KeyError:
            return ""

    shown = [column for column in columns if any(cell(row, column) for row in rows.values())]
    lines = [[name, *(cell(row, column) for column in shown), row.get("failed", "")] for name, row in rows.items()]
    return markdown([head, *shown, "failed"], lines)


def measure(model: str, root: Path, results: Results, args: argparse.Namespace, until: float) -> None:
    """All sections of one model."""
    device, size = torch.device(args.device), SIZES[model]
    products = partial(
        matmul_rate, device, torch.bfloat16, sides=(4096, 8192, 16384) if device.type == "cuda" else (256,)
    )
    rate = products()
    results.put("matmul", rate)
    print(f"\n{model}: {rate['flop_per_s'] / 1e12:.4g} TFLOP/s of bf16 matrix products", flush=True)
    settings = ("training.mixed_precision=bf16", f"training.workers={4 if device.type == 'cuda' else 0}")
    plan = Plan(root, model, device, drawn=True, settings=settings)
    work = make_workload(plan, pairs=max(size.pairs, 2 * size.micro_batch))
    repetitions = args.repetitions or (2 if args.quick else 5)
    bench = Bench(work, accelerator_on(device, "bf16"), rate["flop_per_s"], repetitions, until)
    for name in args.sections:
        if name == "profile" and bench.is_late():
            continue
        results.put(name, SECTIONS[name](bench, size, args.quick))
        if name != "profile":
            print(f"\n{table(results.content[name], f'{model}, {name}')}", flush=True)
    forget(bench)
    results.put("matmul_after", products())  # a device that has grown hot is slower


def measure_scoring(root: Path, results: Results, quick: bool) -> None:
    """Images a second of `smpo score` with a ViT-H/14, against one image at a time."""
    (root / "vit-h").mkdir()
    source = str(scoring.random_vit_h(root / "vit-h"))
    settings = {"source": source, "processor": source, "dtype": "bfloat16"}
    for name, (side, form, stays) in scoring.CASES.items():
        pairs = scoring.make_pairs(root / name, 28 if quick else 448, size=side, format=form, winner_stays=stays)
        results.put(name, scoring.compare(pairs, settings, rounds=1 if quick else 3, options=ScoringOptions()))
        print(f"\nscoring, {name}: {results.content[name]['images_per_s']} images/s", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=SHAPES, default=["sd15", "sdxl"])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="CUDA_VISIBLE_DEVICES names which")
    parser.add_argument("--quick", action="store_true", help="fewer cases and turns, ten minutes in all")
    parser.add_argument("--repetitions", type=int, help="turns that count; default 5, with --quick 2")
    parser.add_argument("--scoring", action=argparse.BooleanOptionalAction, default=True, help="a ViT-H/14, too")
    parser.add_argument("--out", type=Path, help="folder for the JSON files")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device; --device cpu --model tiny shows whether the code runs")
    logging.set_verbosity_error()
    started, allowed = time.monotonic(), QUICK_S if args.quick else float("inf")
    with tempfile.TemporaryDirectory() as scratch:
        root, device = Path(scratch), torch.device(args.device)
        for number_of, model in enumerate(args.model):
            left = started + allowed - time.monotonic()
            until = time.monotonic() + left / (len(args.model) - number_of)
            measure(model, root / model, Results((args.out or root) / f"gpu-{model}.json", device), args, until)
        if args.scoring:
            measure_scoring(root, Results((args.out or root) / "gpu-scoring.json", device), args.quick)


if __name__ == "__main__":
    main()
