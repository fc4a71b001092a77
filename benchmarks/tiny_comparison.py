"""Base, SmPO and Diffusion-DPO on the tiny world: equal pairs, several seeds, one table.

    python benchmarks/tiny_comparison.py --seeds 0 1 2 --out runs/comparison --table benchmarks/results

Each seed draws its own pairs, trains both methods on them and judges all models on the same held-out prompts.
"""

import argparse
import datetime
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from smpo.evaluation.compare import Comparison, compare
from smpo.pipeline.config import Recipe, load_recipe
from smpo.pipeline.stages import BASE, TIMES, run_stage, stages_of
from smpo.tiny.demo import write_prompts

METHODS = {"smpo": "tiny-demo", "dpo": "tiny-dpo"}
SHARED = ("sample", "pairs", "score", "cache", "generate", "evaluate", "store")


def method_recipe(method: str, folder: Path, seed: int, extra: list[str]) -> Recipe:
    """The shipped recipe of a method, moved into the seed's folder and sharing what can be shared."""
    prompts = write_prompts(folder, seed=seed)
    own = [f"paths.{name}={folder / method / name}" for name in ("label", "train", "report")]
    shared = [f"paths.{name}={folder / name}" for name in SHARED]
    overrides = [*own, *shared, f"seed={seed}", f"paths.workdir={folder / method}"]
    overrides += [f"generation.prompts={prompts.held_out}"]
    if method == "smpo":
        overrides += [f"sampling.prompts={prompts.training}", f"sampling.seed={seed + 1}"]
    else:
        overrides += [f"data.source={folder / 'sample' / 'pairs.jsonl'}"]
    return load_recipe(METHODS[method], [*overrides, *extra])


def run_method(recipe: Recipe) -> float:
    """Run every stage that is not done; the seconds that training took, now or in an earlier call."""
    for stage in stages_of(recipe):
        said, took = run_stage(stage, recipe, lambda *_: None)
        print(f"{recipe.name:>6} {stage:>9} {took:6.1f} s  {said}", flush=True)
    noted = map(json.loads, (recipe.workdir / TIMES).read_text().splitlines())
    return max(entry["seconds"] for entry in noted if entry["stage"] == "train")


def rows_of(compared: Comparison, seed: int, seconds: dict[str, float]) -> list[dict]:
    """One row per model: means, medians and win-rates against the base."""
    rows = []
    for model in compared.models:
        row: dict = {"seed": seed, "model": model, "train_seconds": round(seconds.get(model, 0.0), 1)}
        for scorer in compared.units:
            summary = compared.summaries[model][scorer]
            row[f"{scorer}_mean"], row[f"{scorer}_median"] = summary.mean.value, summary.median.value
            if model != BASE:
                won = compared.pairing(model, scorer).win_rate
                values = {"win_rate": won.rate, "win_low": won.low, "win_high": won.high, "ties": won.ties}
                row |= {f"{scorer}_{key}": value for key, value in values.items()}
        rows.append(row)
    return rows


def table_of(rows: list[dict]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    scorers = [key.removesuffix("_mean") for key in rows[0] if key.endswith("_mean")]
    lines = ["| model | " + " | ".join(f"{s} mean | {s} win-rate" for s in scorers) + " | training s |"]
    lines.append("| --- |" + " --- |" * (2 * len(scorers) + 1))
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        cells = []
        for scorer in scorers:
            for key in (f"{scorer}_mean", f"{scorer}_win_rate"):
                values = [row[key] for row in own if key in row]
                cells.append(f"{np.mean(values):.3f} +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else
                             f"{values[0]:.3f}" if values else "")
        lines.append(f"| {model} | " + " | ".join(cells) + f" | {np.mean([row['train_seconds'] for row in own]):.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--table", type=Path, help="folder for the JSON and Markdown result")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--set", nargs="*", default=[], help="overrides for every method")
    args = parser.parse_args()
    started, rows = time.perf_counter(), []
    for seed in args.seeds:
        folder = args.out / f"seed-{seed}"
        recipes = {method: method_recipe(method, folder, seed, args.set) for method in args.methods}
        seconds = {method: run_method(recipe) for method, recipe in recipes.items()}
        rows += rows_of(compare({n: folder / "evaluate" / n for n in (BASE, *recipes)}, BASE), seed, seconds)
        print(table_of(rows), flush=True)
    about = {
        "date": datetime.date.today().isoformat(), "python": platform.python_version(), "torch": torch.__version__,
        "threads": torch.get_num_threads(), "seconds": round(time.perf_counter() - started), "overrides": args.set,
    }
    if args.table:
        args.table.mkdir(parents=True, exist_ok=True)
        (args.table / "tiny-comparison.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
        (args.table / "tiny-comparison.md").write_text(table_of(rows) + "\n")


if __name__ == "__main__":
    main()
