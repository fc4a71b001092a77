"""Our training step against the released one on the CPU, with the embedded tiny model's shapes.

    python -m benchmarks.cpu --out benchmarks/results
    python -m benchmarks.cpu --pairs 4 --repetitions 1 --sections comparison     # a quick look

All cases of a table take turns in one process and see the same examples of the same pairs; medians and ranges are over
the turns. One thread, unless a row says otherwise: tiny tensors get slower with more. What else runs on the machine is
told by the load averages in the JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.op_profile import profiled
from benchmarks.released_step import ReleasedOptions
from benchmarks.timing import Case, Repetition, Results, alternate, markdown, number, ratios, spread, summary, timed
from benchmarks.workload import Plan, Workload, accelerator_on, make_workload, released_stepping, stepping
from smpo.cost.estimate import counts_of, estimate

CPU = torch.device("cpu")
FLOAT32 = ("training.mixed_precision='no'", "training.workers=0", "cache.dtype=float32")
BASELINE, MATMUL = "released step", "matmul"
SAME = "noising={name: released, inversion_steps: 4, predictions: 2, jitter: 0.0}"
PAPER = "the paper's recipe: ReNoise, at most 9 steps"
RECIPES = {
    PAPER: (),
    "chained inversion, 4 timesteps a chain": ("noising={name: chained, chain_length: 4}",),
    "no inversion: DPO": ("noising={name: forward}",),
    "cached inversions, 2 of each pair": ("noising.network=reference", "training.cached_inversion_epochs=2"),
}
PLAIN, COMPILED = "plain", "compiled"
OPTIONS = {
    PLAIN: (),
    COMPILED: ("training.compile=true",),
    "selective checkpointing": ("training.gradient_checkpointing=selective",),
    "gradient checkpointing": ("training.gradient_checkpointing=true",),
    "channels last": ("training.channels_last=true",),
    "AdamW, fused": ("training.optimizer.fused=true",),
}
MATMUL_SIDE, MATMUL_COUNT = 1024, 20


@dataclass(frozen=True)
class Size:
    """How much is measured: pairs an optimizer step, and turns that count."""

    pairs: int
    repetitions: int


def micro(size: int) -> str:
    """The override of the micro-batch."""
    return f"training.micro_batch_size={size}"


def matmul() -> dict[str, float]:
    """Products of float32 matrices: what this core can do, in the same turns as the steps."""
    a = torch.randn(MATMUL_SIDE, MATMUL_SIDE)
    for _ in range(MATMUL_COUNT):
        a @ a
    return {"flops": 2.0 * MATMUL_SIDE**3 * MATMUL_COUNT}


def comparison(work: Workload, accelerator: Accelerator, size: Size) -> dict[str, Any]:
    """The released step, ours with the same mathematics, and our recipes."""
    largest = micro(size.pairs)
    cases = [baseline(work, accelerator), Case(MATMUL, matmul)]
    for images in sorted({1, min(8, size.pairs), size.pairs}):
        cases.append(ours(work, accelerator, f"ours, same mathematics, micro-batch {images}", SAME, micro(images)))
    cases += [ours(work, accelerator, name, *changes, largest) for name, changes in RECIPES.items()]
    return measured(cases, size)


def micro_batches(work: Workload, accelerator: Accelerator, size: Size) -> dict[str, Any]:
    """The same mathematics at growing micro-batches."""
    sizes = [images for images in (1, 2, 4, 8, 16, 32, 64) if size.pairs % images == 0]
    return measured([ours(work, accelerator, str(images), SAME, micro(images)) for images in sizes], size)


def inversion_steps(work: Workload, accelerator: Accelerator, size: Size) -> dict[str, Any]:
    """The paper's recipe at other numbers of steps (its Table 4); 0 stands for random noise."""
    changes = {"0": "noising={name: forward}"} | {str(n): f"noising.inversion_steps={n}" for n in (2, 4, 9, 19)}
    return measured([ours(work, accelerator, n, change, micro(size.pairs)) for n, change in changes.items()], size)


def resolutions(root: Path, accelerator: Accelerator, size: Size) -> dict[str, Any]:
    """The same mathematics and the released step at larger images; 8 pairs a step."""
    few, sides = Size(min(8, size.pairs), size.repetitions), (64, 128, 256)
    found: dict[str, Any] = {}
    for side in sides:
        plan = replace(plan_in(root / f"{side}", few.pairs, micro(few.pairs)), px=side)
        work = make_workload(plan, pairs=few.pairs)
        cases = [baseline(work, accelerator), Case(MATMUL, matmul), ours(work, accelerator, "ours", SAME)]
        found[f"{side} px"] = measured(cases, few)
    return found


def hours(root: Path, accelerator: Accelerator, size: Size) -> dict[str, Any]:
    """Pairs a second predicted from `smpo cost`'s FLOPs and one case's share of the matmul rate, and those measured."""
    plan = plan_in(root / "hours", size.pairs)
    places = {"": {}, "128 px": {"px": 128}, "SDXL's layout": {"model": "tiny-sdxl"}}
    works = {
        name: make_workload(replace(plan, root=root / f"hours-{number}", **changes), pairs=size.pairs)
        for number, (name, changes) in enumerate(places.items())
    }
    cases, flops = [Case(MATMUL, matmul)], {}
    for name, (place, changes) in predicted_cases(size).items():
        recipe = works[place].recipe(*changes)
        flops[name] = estimate(recipe, counts_of(recipe)).flops_per_example
        cases.append(ours(works[place], accelerator, name, *changes))
    return predictions(alternate(cases, repetitions=size.repetitions, device=CPU), flops)


def predicted_cases(size: Size) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Case -> (which model, overrides); the share is measured on the first."""
    largest = (micro(size.pairs), "training.gradient_checkpointing=false")
    cases = {PAPER: ("", ()), "the released inversion": ("", (SAME,))}
    cases |= {name: ("", changes) for name, changes in RECIPES.items() if name != PAPER}
    cases |= {
        "gradient checkpointing": ("", ("training.gradient_checkpointing=true",)),
        "selective checkpointing": ("", ("training.gradient_checkpointing=selective",)),
        "LoRA of rank 8": ("", ("training.lora={rank: 8}",)),
        "128 px": ("128 px", ()), "SDXL's layout": ("SDXL's layout", ()),
        **{f"micro-batch {images}": ("", (micro(images),)) for images in (8, 1)},
    }
    return {name: (place, (*largest, *changes)) for name, (place, changes) in cases.items()}


def predictions(turns: Mapping[str, Sequence[Repetition]], flops: Mapping[str, float]) -> dict[str, Any]:
    """Row by case: FLOPs of a pair, pairs a second predicted and measured, what is wrong, and the case's own share.

    Turn by turn: matmul rate x share of the first case / FLOPs of a pair; the error is predicted / measured - 1.
    """
    rates = {name: [turn.per_s() for turn in own] for name, own in turns.items() if name != MATMUL}
    peaks = [turn.per_s("flops") for turn in turns[MATMUL]]
    first = next(iter(flops))
    shares = {name: [rate * flops[name] / peak for rate, peak in zip(own, peaks, strict=True)]
              for name, own in rates.items()}
    rows = {}
    for name, own in rates.items():
        told = [peak * share / flops[name] for peak, share in zip(peaks, shares[first], strict=True)]
        rows[name] = {
            "gflop_a_pair": flops[name] / 1e9, "predicted_pairs_per_s": summary(told), "pairs_per_s": summary(own),
            "error": summary([one / other - 1 for one, other in zip(told, own, strict=True)]),
            "share_of_matmul": summary(shares[name]),
        }
    return rows


def options(work: Workload, accelerator: Accelerator, size: Size) -> dict[str, Any]:
    """The options that are about speed, at two micro-batches, in turns with the plain recipe; all compiled anew."""
    rows: dict[str, Any] = {}
    for images in sorted({min(8, size.pairs), size.pairs}):
        torch._dynamo.reset()
        cases = [ours(work, accelerator, name, micro(images), *changes) for name, changes in OPTIONS.items()]
        with torch.compiler.config.patch(force_disable_caches=True):
            first_s = {case.name: timed(case.work, CPU).wall_s for case in cases}
            turns = alternate(cases, repetitions=size.repetitions, device=CPU)
        rows |= {f"micro-batch {images}, {name}": beside_plain(turns, name) for name in OPTIONS}
        rows[f"micro-batch {images}, {COMPILED}"] |= break_even(turns, first_s)
    return rows


def beside_plain(turns: Mapping[str, Sequence[Repetition]], name: str) -> dict[str, Any]:
    """A case's rate, and its ratio to the plain recipe's."""
    own, plain = ([turn.per_s() for turn in turns[case]] for case in (name, PLAIN))
    return {"pairs_per_s": summary(own), "x_plain": ratios(own, plain)}


def break_even(turns: Mapping[str, Sequence[Repetition]], first_s: Mapping[str, float]) -> dict[str, float | None]:
    """What compiling took in the first step, s, and after how many optimizer steps that is won back; None is never."""
    plain, compiled = (statistics.median(turn.wall_s for turn in turns[name]) for name in (PLAIN, COMPILED))
    compiling = first_s[COMPILED] - compiled
    return {"compile_s": compiling, "paid_after_steps": compiling / (plain - compiled) if compiled < plain else None}


def baseline(work: Workload, accelerator: Accelerator) -> Case:
    """The released step's case."""
    return Case(BASELINE, released_stepping(work, work.run(SAME), accelerator, ReleasedOptions()))


def ours(work: Workload, accelerator: Accelerator, name: str, *changes: str) -> Case:
    """A case of our trainer."""
    return Case(name, stepping(work, work.run(*changes), accelerator))


def measured(cases: Sequence[Case], size: Size) -> dict[str, Any]:
    """Row by case."""
    return table_of(alternate(cases, repetitions=size.repetitions, device=CPU))


def table_of(turns: Mapping[str, Sequence[Repetition]]) -> dict[str, Any]:
    """Rates of every case, their ratio to the released step's and their share of the matmul rate, turn by turn."""
    rows = {}
    for name, own in turns.items():
        if name == MATMUL:
            continue
        pairs = own[0].counts["pairs"]
        rows[name] = {
            "pairs_per_s": summary([turn.per_s() for turn in own]),
            "pairs_per_cpu_s": summary([turn.per_cpu_s() for turn in own]),
            "evaluations_a_pair": {kind: own[0].counts[kind] / pairs for kind in ("trained", "free")},
            "loss": [turn.counts["loss"] for turn in own],
        }
        if BASELINE in turns:
            rows[name]["speedup"] = ratios(*([t.per_s() for t in case] for case in (own, turns[BASELINE])))
            rows[name]["speedup_cpu"] = ratios(*([t.per_cpu_s() for t in case] for case in (own, turns[BASELINE])))
        if MATMUL in turns:
            shares = ratios(*([t.per_cpu_s("flops") for t in case] for case in (own, turns[MATMUL])))
            rows[name]["share_of_matmul"] = shares
    return rows


def processes(work: Workload, size: Size) -> dict[str, Any]:
    """The paper's recipe on one and two processes of a thread each (DDP over gloo), started anew in every turn."""
    layouts = {"1 process": 1, "2 processes": 2}
    rates: dict[str, list[float]] = {name: [] for name in layouts}
    for _ in range(max(1, size.repetitions // 2)):
        for name, ranks in layouts.items():
            rates[name].append(launched(work, ranks, size))
    return {name: {"pairs_per_s": summary(own)} for name, own in rates.items()}


def launched(work: Workload, ranks: int, size: Size) -> float:
    """Pairs a second of `ranks` processes together, median of three optimizer steps after one that does not count."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks > 1 else []
    command = [sys.executable, "-m", *launcher, "benchmarks.cpu", "--rank-of", str(work.plan.root)]
    command += ["--pairs", str(size.pairs)]
    told = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    ).stdout
    return next(json.loads(line)["pairs_per_s"] for line in told.splitlines() if line.startswith('{"pairs_per_s"'))


def rank(root: Path, size: Size) -> None:
    """What a process of `launched` does; the main one prints the rate."""
    accelerator = accelerator_on(CPU, "no")
    share = size.pairs // accelerator.num_processes
    work = Workload(plan_in(root, size.pairs))
    turns = alternate([ours(work, accelerator, PAPER, micro(share))], repetitions=3, device=CPU)[PAPER]
    if accelerator.is_main_process:
        print(json.dumps({"pairs_per_s": statistics.median(turn.per_s() for turn in turns)}), flush=True)
    accelerator.end_training()


def plan_in(root: Path, pairs: int, *settings: str) -> Plan:
    """The embedded tiny model with its own weights, `pairs` pairs an optimizer step."""
    return Plan(root, "tiny", CPU, drawn=False, settings=(*FLOAT32, f"training.batch_size={pairs}", *settings))


def profile_of(work: Workload, accelerator: Accelerator, size: Size) -> dict[str, Any]:
    """Where the time of a step goes: ours with the same mathematics in one micro-batch, and the released one's."""
    few = min(2, size.pairs)
    found = {}
    for name, case in {
        "ours": ours(work, accelerator, "", SAME, micro(size.pairs)),
        BASELINE: Case("", released_stepping(
            work, work.run(SAME, f"training.batch_size={few}", micro(1)), accelerator, ReleasedOptions()
        )),
    }.items():
        case.work()
        found[name] = profiled(case.work, CPU)
    return found


SECTIONS = {
    "comparison": comparison, "micro_batches": micro_batches, "inversion_steps": inversion_steps,
    "resolutions": resolutions, "processes": processes, "profile": profile_of, "hours": hours, "options": options,
}


def tables(content: Mapping[str, Any]) -> dict[str, str]:
    """Markdown by section, as docs/benchmarks.md shows it."""
    made = {
        name: rates_table(content[name], head) for name, head in (
            ("comparison", "step"), ("micro_batches", "micro-batch, pairs"), ("inversion_steps", "inversion steps"),
            ("processes", "processes"),
        ) if name in content
    }
    if "resolutions" in content:
        flat = {f"{side}, {row}": own for side, rows in content["resolutions"].items() for row, own in rows.items()}
        made["resolutions"] = rates_table(flat, "images, step")
    if "profile" in content:
        found = content["profile"]
        kinds = {kind: None for own in found.values() for kind in own["shares"]}  # ours come first, by size
        rows = [[kind, *(f"{own['shares'].get(kind, 0):.0%}" for own in found.values())] for kind in kinds]
        made["profile"] = markdown(["time of a step", *found], rows)
    if "hours" in content:
        made["hours"] = hours_table(content["hours"])
    if "options" in content:
        made["options"] = options_table(content["options"])
    return made


def hours_table(rows: Mapping[str, Any]) -> str:
    """One line a case: what was predicted, what was measured."""
    heads = ["case", "GFLOP a pair", "pairs/s, predicted", "measured", "error", "of matmul rate"]
    lines = [
        [name, number(row["gflop_a_pair"]), number(row["predicted_pairs_per_s"]["median"]), spread(row["pairs_per_s"]),
         f"{row['error']['median']:+.0%} [{row['error']['lowest']:+.0%}, {row['error']['highest']:+.0%}]",
         f"{row['share_of_matmul']['median']:.0%}"]
        for name, row in rows.items()
    ]
    return markdown(heads, lines)


def options_table(rows: Mapping[str, Any]) -> str:
    """One line a case: rate, ratio to the plain recipe's, and what compiling costs."""
    lines = []
    for name, row in rows.items():
        after = row.get("paid_after_steps")
        compiling = [f"{row['compile_s']:.0f}", "never" if after is None else number(after)] \
            if "compile_s" in row else ["", ""]
        lines.append([name, spread(row["pairs_per_s"]), spread(row["x_plain"]), *compiling])
    return markdown(["micro-batch, option", "pairs/s", "x plain", "compiling, s", "won back after steps"], lines)


def rates_table(rows: Mapping[str, Any], head: str) -> str:
    """One line a case: rate, ratio to the released step, work, share of the matmul rate."""
    first = next(iter(rows.values()))
    heads = {
        "pairs_per_s": "pairs/s", "pairs_per_cpu_s": "pairs per CPU s", "speedup": "x released",
        "speedup_cpu": "in CPU time", "share_of_matmul": "of matmul rate", "evaluations_a_pair": "UNet images a pair",
    }
    shown = {key: title for key, title in heads.items() if key in first}

    def cell(row: Mapping[str, Any], key: str) -> str:
        if key == "evaluations_a_pair":
            return f"{row[key]['trained']:.3g} + {row[key]['free']:.3g}"
        if key == "share_of_matmul":
            return f"{row[key]['median']:.0%}"
        return spread(row[key])

    return markdown([head, *shown.values()], [[name, *(cell(row, key) for key in shown)] for name, row in rows.items()])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=32, help="pairs an optimizer step; a multiple of 4")
    parser.add_argument("--repetitions", type=int, default=5, help="turns that count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, help="folder for cpu.json; sections that are not run now stay in it")
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = Size(args.pairs, args.repetitions)
    if args.rank_of:
        rank(args.rank_of, size)
        return
    accelerator = accelerator_on(CPU, "no")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        results = Results((args.out or root) / "cpu.json", CPU)
        work = make_workload(plan_in(root / "main", size.pairs), pairs=size.pairs)
        for name in args.sections:
            own = {"processes": (work,), "resolutions": (root, accelerator), "hours": (root, accelerator)}
            place = own.get(name, (work, accelerator))
            results.put(name, SECTIONS[name](*place, size))
            print(f"\n{tables(results.content)[name]}", flush=True)


if __name__ == "__main__":
    main()
