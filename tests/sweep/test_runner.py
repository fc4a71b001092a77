"""Sweeps through the real stages on the tiny model: one process and two, interrupted and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from smpo.sweep import runner
from smpo.sweep.plan import Sweep, load_sweep
from smpo.sweep.runner import RESULT, finished_row, ready, run_sweep
from smpo.tiny.prompts import sample_prompts

FILE = """
name: small
recipe: tiny-study
seeds: [0]
set:
  sampling.prompts: {prompts}
  sampling.num_inference_steps: 2
  sampling.seed: "{{seed+1}}"
  generation.prompts: {prompts}
  generation.num_inference_steps: 2
  evaluation.scorers: {{verifier: {{name: verifier}}}}
  training.steps: 2
  training.batch_size: 4
  training.micro_batch_size: 2
rows:
  start: {{set: {{labels.name: hard, noising.name: forward, objective.name: sft}}}}
  dpo:
    set: {{labels.name: hard, noising.name: forward, objective.name: dpo, init_weights: "{{run:start}}/train/model"}}
report: {{wins_of: dpo}}
"""


def write_sweep(folder: Path, **changes: str) -> Path:
    text = FILE.format(prompts=json.dumps(sample_prompts(4, seed=0, split="train")))
    for old, new in changes.items():
        text = text.replace(old, new)
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def test_a_run_starts_once_those_it_needs_are_done(tmp_path: Path) -> None:
    sweep = load_sweep(str(write_sweep(tmp_path)), tmp_path)
    sweep = Sweep(sweep.file.model_copy(update={"seeds": (0, 1)}), sweep.folder)
    runs = sweep.runs()
    starts, others = runs[::2], runs[1::2]
    assert ready(runs, set(), {}, []) == starts
    assert ready(runs, set(), {}, [starts[0].folder]) == [starts[1]]
    assert ready(runs, {starts[0].folder}, {}, [starts[1].folder]) == [others[0]]
    assert ready(runs, {starts[1].folder}, {str(starts[0].folder): "why"}, []) == [others[1]]


def test_what_runs_share_is_made_by_one_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep, seen, held = load_sweep(str(write_sweep(tmp_path)), tmp_path), {}, []

    @contextmanager
    def holding(folder: Path) -> Iterator[None]:
        held.append(str(folder.relative_to(tmp_path)))
        yield
        held.pop()

    def note(stage: str, *_: Any) -> tuple[str, float]:
        seen[stage] = list(held)
        return "", 0.0

    monkeypatch.setattr(runner, "exclusive", holding)
    monkeypatch.setattr(runner, "run_stage", note)
    monkeypatch.setattr(runner, "score_sets", lambda *_: None)
    monkeypatch.setattr(runner, "row_of", lambda *_: {"scores": {}})
    runner.do_run(sweep, sweep.runs()[0])
    assert seen == {
        "sample": ["seed-0/sample"], "pairs": ["seed-0/pairs"], "score": ["seed-0/score/pickscore"],
        "label": [], "cache": ["seed-0/cache"], "train": [], "generate": [],
    }


def test_a_row_of_other_settings_is_not_taken_for_finished(tmp_path: Path) -> None:
    sweep = load_sweep(str(write_sweep(tmp_path)), tmp_path)
    run = sweep.runs()[0]
    run.folder.mkdir(parents=True)
    (run.folder / RESULT).write_text(json.dumps({"plan": "of another"}))
    assert finished_row(run) is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, list[str]]:
    folder = tmp_path_factory.mktemp("sweep")
    sweep, lines = load_sweep(str(write_sweep(folder)), folder / "runs"), []
    outcome = run_sweep(sweep, jobs=2, say=lines.append)
    assert (outcome.failed, outcome.computed, len(outcome.rows)) == ({}, 2, 2)
    return sweep, lines


@pytest.mark.slow
def test_rows_hold_scores_wins_and_work(finished: tuple[Sweep, list[str]]) -> None:
    sweep, lines = finished
    rows = [json.loads(line) for line in sweep.rows_path.read_text().splitlines()]
    assert [(row["row"], row["seed"]) for row in rows] == [("start", 0), ("dpo", 0)]
    start, dpo = rows
    assert set(start["scores"]) == {"verifier"} and 0 <= dpo["scores"]["verifier"]["mean"] <= 1
    assert set(start["wins_of"]) == {"verifier"} and "wins_of" not in dpo
    assert start["training"]["steps"] == 2 and start["training"]["pairs"] == 8 and start["seconds"]["train"] > 0
    assert not list(sweep.folder.rglob("checkpoints")) and len(lines) == 2


@pytest.mark.slow
def test_the_second_call_does_nothing_and_one_process_gives_the_same_numbers(
    finished: tuple[Sweep, list[str]], tmp_path: Path
) -> None:
    sweep, _ = finished
    again = run_sweep(sweep, jobs=1, say=lambda line: None)
    alone = run_sweep(Sweep(sweep.file, tmp_path), jobs=1, say=lambda line: None)
    assert (again.computed, alone.computed) == (0, 2)
    for both in zip(again.rows, alone.rows, strict=True):
        assert both[0]["scores"] == both[1]["scores"]
        assert both[0]["training"]["loss"] == both[1]["training"]["loss"]


@pytest.mark.slow
def test_a_failed_run_stops_no_other(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, **{"objective.name: sft": "objective.name: sft, training.optimizer.lr: 1.0e30"})
    outcome = run_sweep(load_sweep(str(path), tmp_path / "runs", ["training.steps=3"]), say=lambda line: None)
    assert len(outcome.failed) == 2 and not outcome.rows
    assert "not finite" in next(iter(outcome.failed.values())) and "not run" in list(outcome.failed.values())[-1]


@pytest.mark.slow
def test_a_killed_sweep_carries_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "smpo", "sweep", str(write_sweep(tmp_path)), "--out", str(tmp_path / "runs")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    first = tmp_path / "runs" / "seed-0" / "start" / RESULT
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # the workers too: one that is left alone would end its run first
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob(RESULT)}
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 rows" in done.stdout and f"{2 - len(before)} computed now" in done.stdout
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert (tmp_path / "runs" / "small-report" / "report.html").exists()


@pytest.mark.slow
def test_runs_that_share_everything_start_together_and_make_it_once(tmp_path: Path) -> None:
    rows = "rows:\n  slow: {set: {training.optimizer.lr: 1.0e-5}}\n  fast: {}\nreport: {}\n"
    path = tmp_path / "shared.yaml"
    path.write_text(write_sweep(tmp_path).read_text().split("rows:")[0] + rows)
    outcome = run_sweep(load_sweep(str(path), tmp_path / "runs"), jobs=2, say=lambda line: None)
    assert (outcome.failed, outcome.computed) == ({}, 2)
    assert [row["scores"]["verifier"]["base_mean"] for row in outcome.rows] == [
        outcome.rows[0]["scores"]["verifier"]["base_mean"]] * 2
    assert sorted(path.name for path in (tmp_path / "runs/seed-0/score").iterdir()) == ["pickscore", "pickscore.lock"]
