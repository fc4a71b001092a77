"""What `smpo check` finds: a sound set-up, and set-ups that are broken in one place each."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from smpo.core.artefacts import begin
from smpo.core.errors import ConfigError
from smpo.pipeline.config import load_recipe
from smpo.preflight import Finding, Outcome, check, machine, require
from smpo.preflight.machine import check_writable
from smpo.tiny.prompts import sample_prompts
from tests.cli.test_app import smpo

SUBJECTS = {
    "folders", "processes", "device", "packages", "prompts", "pairs", "model", "timesteps", "scorers", "disk, memory",
}


@pytest.fixture
def set_up(tmp_path: Path) -> list[str]:
    """Overrides of tiny-demo for a folder with prompts and three labelled pairs."""
    for name, split in (("train", "train"), ("test", "heldout")):
        (tmp_path / f"{name}.txt").write_text("\n".join(sample_prompts(3, seed=0, split=split)))
    rows = []
    for number in range(3):
        for side in "ab":
            picture = Image.new("RGB", (64, 64), (number * 50, 90, 200 if side == "a" else 10))
            picture.save(tmp_path / f"{number}{side}.png")
        rows.append({"prompt": f"prompt {number}", "chosen": f"{number}a.png", "rejected": f"{number}b.png"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        f"paths.workdir={tmp_path}/run", f"generation.prompts={tmp_path}/test.txt", "sampling=null",
        f"data.source={tmp_path}/pairs.jsonl", "training.trackers=[]",
    ]


def findings(set_up: list[str], *changes: str, stages: list[str] | None = None) -> list[Finding]:
    return list(check(load_recipe("tiny-demo", [*set_up, *changes]), stages))


def failed(results: list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.text for finding in results if finding.outcome is Outcome.FAILED}


def test_a_sound_set_up_passes_and_leaves_nothing_behind(set_up: list[str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    results = findings(set_up)
    assert {finding.subject for finding in results} == SUBJECTS and not failed(results)
    assert "3 rows; the first 3: 3 sound" in next(one.text for one in results if one.subject == "pairs")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("stage", "change", "subject", "text"), [
    ("pairs", "data.source=/nowhere/pairs.jsonl", "pairs", "/nowhere/pairs.jsonl does not exist"),
    ("generate", "generation.prompts=/nowhere/prompts.txt", "prompts", "/nowhere/prompts.txt does not exist"),
    ("cache", "model.source=/nowhere/model", "model", "/nowhere/model"),
    ("train", "init_weights=/nowhere/unet", "model", "/nowhere/unet"),
    ("generate", "generation.models={other: /nowhere/other}", "compared", "/nowhere/other"),
    ("evaluate", "evaluation.scorers.clip.source=/nowhere/clip", "scorers", "/nowhere/clip"),
    ("train", "training.max_timestep=1000", "timesteps", "training.max_timestep must be < 1000"),
    ("generate", "generation.num_inference_steps=1001", "timesteps", "generation.num_inference_steps must be <= 1000"),
    ("train", "training.mixed_precision=fp16", "device", "fp16 needs a GPU"),
    ("generate", "generation.device=cuda:7", "device", "device 'cuda:7' cannot be used"),
    ("train", "training.lora={rank: 2, targets: [to_x]}", "adapters", "unknown module of training.lora.targets"),
    ("train", "training.optimizer.name=adamw_8bit", "packages", "needs the package bitsandbytes"),
    ("evaluate", "evaluation.held_out={pairs: /a, label: /b, cache: /c}", "held-out pairs", "/a holds no pairs"),
])
def test_one_fault_is_one_failed_finding(set_up: list[str], stage: str, change: str, subject: str, text: str) -> None:
    problems = failed(findings(set_up, change, stages=[stage]))
    assert list(problems) == [subject] and text in problems[subject]
    assert "\n" not in problems[subject]


def test_rows_that_are_no_pairs_fail_and_some_of_them_warn(set_up: list[str], tmp_path: Path) -> None:
    (tmp_path / "1a.png").write_bytes(b"no image")
    (results,) = findings(set_up, stages=["pairs"])[1:]
    assert results.outcome is Outcome.WARNING and results.text.endswith("2 sound, 1 undecodable_image")
    for file in tmp_path.glob("*a.png"):
        file.write_bytes(b"no image")
    assert "3 undecodable_image" in failed(findings(set_up))["pairs"]


def test_a_disk_that_is_too_small_is_named(set_up: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert "1e-06 GB free, and the run writes" in failed(findings(set_up))["disk, memory"]


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, reason in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "below", "Not a directory"),
                           (tmp_path / ("x" * 300), "name too long"), (Path("/proc/smpo"), "cannot be written")):
        with pytest.raises(ConfigError, match=reason):
            check_writable(folder)
    check_writable(tmp_path / "new" / "deep")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_holds_something_else_is_named(set_up: list[str], tmp_path: Path) -> None:
    (tmp_path / "run" / "cache").mkdir(parents=True)
    (tmp_path / "run" / "cache" / "thesis.txt").write_text("")
    assert "run/cache holds files but no manifest.json" in failed(findings(set_up, stages=["label"]))["folders"]
    begin(tmp_path / "other", stage="pairs", settings={}, inputs={})
    (problem,) = failed(findings(set_up, f"paths.cache={tmp_path}/other", stages=["label"])).values()
    assert problem == f"{tmp_path}/other is an artefact of `smpo pairs`; set paths.cache to another folder"


def test_a_run_asks_only_for_its_unfinished_stages_and_names_all_failures(set_up: list[str]) -> None:
    recipe = load_recipe("tiny-demo", [*set_up, "training.max_timestep=1000", "generation.prompts=/nowhere.txt"])
    with pytest.raises(ConfigError, match=r"2 checks failed: prompts: .* \| timesteps: "):
        require(recipe, ["pairs", "label", "cache", "train", "generate"])
    assert require(recipe, ["label"]) == []


@pytest.mark.slow
def test_the_command_prints_a_line_a_finding_and_fails_where_one_failed(set_up: list[str]) -> None:
    sound = smpo("check", "tiny-demo", *set_up)
    assert sound.returncode == 0, sound.stderr
    *lines, last = sound.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert last == f"smpo can run: {len(lines)} findings, 0 of them warnings."
    broken = smpo("run", "tiny-demo", *set_up, "training.max_timestep=1000")
    assert broken.returncode == 1 and broken.stderr.startswith("error: training.max_timestep must be < 1000")
