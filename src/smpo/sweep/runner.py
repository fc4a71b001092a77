"""Runs a sweep: finished runs are kept, worker processes share the others, and a failed run does not stop them."""

import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

import torch

from smpo.core.artefacts import fingerprint, write_atomically
from smpo.core.errors import ProcessError, Stopped
from smpo.core.library_output import quieten_libraries
from smpo.core.locks import exclusive
from smpo.core.progress_lines import ProgressLines
from smpo.core.signals import stopping
from smpo.pipeline.config import Recipe
from smpo.pipeline.stages import places_of, run_stage, score_sets, stages_of
from smpo.sweep.plan import PlannedRun, Sweep
from smpo.sweep.rows import RunRow, row_of, wins_of
from smpo.sweep.workers import submitted, worker_pool
from smpo.training.trainer import forget_precision

RESULT = "row.json"
PREPARED = "prepared.json"
TRACE = "error.txt"
Say = Callable[[str], None]
"""Called with a line for every finished run."""


@dataclass(frozen=True)
class Outcome:
    """The rows of a sweep, the number that this call computed, and failed runs: folder -> reason."""

    rows: tuple[RunRow, ...]
    computed: int
    failed: dict[str, str]


def run_sweep(sweep: Sweep, *, jobs: int = 1, say: Say = print) -> Outcome:
    """Run everything that has no result yet, `jobs` runs at a time, and write the rows.

    An artefact that several runs share is made by one of them, while the others wait. With GPUs, worker i uses GPU i
    modulo their number. Without, the cores are divided among the workers.

    Args:
        sweep: the sweep.
        jobs: worker processes, > 0.
        say: called with a line for every finished run.
    """
    runs = sweep.runs()
    done = {run.folder for run in runs if finished_row(run) is not None}
    before = len(done)
    failed: dict[str, str] = {}
    with worker_pool(jobs, settle) as pool:
        working: dict[Future[str], PlannedRun] = {}
        while True:
            for run in ready(runs, done, failed, [run.folder for run in working.values()]):
                if len(working) < jobs:
                    working[submitted(pool, do_run, sweep, run)] = run
            if not working:
                break
            finished, _ = wait(working, return_when=FIRST_COMPLETED)
            for future in finished:
                run = working.pop(future)
                problem = future.exception()
                if isinstance(problem, Stopped):
                    raise problem
                if problem is None:
                    done.add(run.folder)
                    (run.folder / TRACE).unlink(missing_ok=True)
                    say(f"[{len(done)}/{len(runs)}] seed {run.seed}  {run.row}: {future.result()}")
                else:
                    failed[str(run.folder)] = f"{type(problem).__name__}: {problem}"
                    write_atomically(run.folder / TRACE, "".join(traceback.format_exception(problem)))
                    say(f"failed: seed {run.seed}  {run.row}: {problem}; see {run.folder / TRACE}")
            write_rows(sweep, runs)
    for run in runs:
        if run.folder not in done and str(run.folder) not in failed:
            failed[str(run.folder)] = "not run, because a run that it needs failed"
    rows = write_rows(sweep, runs)
    return Outcome(rows, len(done) - before, failed)


def ready(
    runs: Sequence[PlannedRun], done: set[Path], failed: dict[str, str], working: Sequence[Path]
) -> list[PlannedRun]:
    """The runs that can start now: they have not started, and the runs that they need are done."""
    started = {*done, *working, *map(Path, failed)}
    return [run for run in runs if run.folder not in started and done.issuperset(run.after)]


def finished_row(run: PlannedRun) -> RunRow | None:
    """The result of `run`, if it exists and was made from the same settings, by this sweep or another one."""
    path = run.folder / RESULT
    row: RunRow | None = json.loads(path.read_text()) if path.exists() else None
    if row is None or row["plan"] != plan_of(run):
        return None
    return {**row, "row": run.row, "seed": run.seed, "settings": run.settings, "curve": run.curve}


def plan_of(run: PlannedRun) -> str:
    """Hash of everything that determines a run's result."""
    return fingerprint([run.source, sorted(run.overrides), run.commands])


def settle(places: "Queue[int]", jobs: int) -> None:
    """Give this worker process its GPU, or its share of the cores, before it computes anything."""
    place, gpus = places.get(), torch.cuda.device_count()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place % gpus)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // jobs))


@stopping()
def do_run(sweep: Sweep, run: PlannedRun) -> str:
    """Run all stages of one run; returns a line about it. On a signal it stops where it can be resumed."""
    quieten_libraries()
    forget_precision()
    _prepare_seed(sweep, run.seed)
    _commands(run.commands)
    recipe, seconds = run.recipe(), {}
    for stage in stages_of(recipe):
        if stage not in ("evaluate", "report"):
            with _turns(stage, recipe, run), _progress(stage, run) as progress:
                _, seconds[stage] = run_stage(stage, recipe, progress)
    started = time.perf_counter()
    with _progress("evaluate", run) as progress:
        score_sets(recipe, progress)
    seconds["evaluate"] = time.perf_counter() - started
    row = row_of(recipe, run)
    result: RunRow = {**row, "seconds": {stage: round(s, 2) for stage, s in seconds.items()}, "plan": plan_of(run)}
    if not sweep.file.keep_checkpoints:
        shutil.rmtree(recipe.folder("train") / "checkpoints", ignore_errors=True)
    write_atomically(run.folder / RESULT, json.dumps(result, indent=1) + "\n")
    return "  ".join(f"{name} {scores['mean']:.3f}" for name, scores in row["scores"].items())


def _progress(stage: str, run: PlannedRun) -> ProgressLines:
    return ProgressLines(stage, before=f"[seed {run.seed}, {run.row}] ")


@contextmanager
def _turns(stage: str, recipe: Recipe, run: PlannedRun) -> Iterator[None]:
    """Lock the artefacts of `stage` that several runs share; each score table has a lock of its own."""
    with ExitStack() as turns:
        for place in places_of(stage, recipe):
            if not place.is_relative_to(run.folder):
                turns.enter_context(exclusive(place))
        yield


def _prepare_seed(sweep: Sweep, seed: int) -> None:
    commands, stamp = sweep.each_seed(seed), sweep.seed_folder(seed) / PREPARED
    text = json.dumps(commands)
    with exclusive(stamp) if commands else nullcontext():
        if commands and not (stamp.exists() and stamp.read_text() == text):
            _commands(commands)
            write_atomically(stamp, text)


def _commands(commands: Sequence[Sequence[str]]) -> None:
    for command in commands:
        command = [sys.executable if part == "python" and not i else part for i, part in enumerate(command)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ProcessError(f"`{' '.join(command)}` ended with {done.returncode}: {last}")


def write_rows(sweep: Sweep, runs: Sequence[PlannedRun]) -> tuple[RunRow, ...]:
    """Write the results so far to `rows_path`, in the order of the plan; returns them."""
    finished = [(run, row) for run in runs if (row := finished_row(run)) is not None]
    winners = {run.seed: run.folder for run, _ in finished if run.row == sweep.file.report.wins_of}
    for run, row in finished:
        if run.folder != winners.get(run.seed, run.folder):
            row["wins_of"] = wins_of(winners[run.seed], run.folder)
    rows = tuple(row for _, row in finished)
    write_atomically(sweep.rows_path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows
