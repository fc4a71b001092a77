"""The command line as a person meets it: real processes, exit codes, one-line errors."""

import os
import subprocess
import sys

import yaml
from typer.main import get_command

from smpo import __version__
from smpo.cli.app import VERBS, app
from smpo.cli.display import Display, RateColumn


def smpo(*arguments, cwd=None):
    """The finished process of `python -m smpo ...`."""
    return subprocess.run(
        [sys.executable, "-m", "smpo", *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
        env={**os.environ, "COLUMNS": "120"}, timeout=120, check=False,
    )


def test_help_names_every_verb_and_imports_no_torch():
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "smpo", "--help"], capture_output=True, text=True, check=True
    )
    for verb in (*VERBS, "audit", "run", "cost", "show", "demo"):
        assert f" {verb} " in process.stdout
    assert " torch" not in process.stderr and "diffusers" not in process.stderr


def test_the_flags_of_a_stage_are_frozen():
    commands = get_command(app).commands
    assert sorted(p.name for p in commands["train"].params) == ["dry_run", "overrides", "recipe"]
    assert sorted(p.name for p in commands["demo"].params) == ["out", "seed"]


def test_dry_run_of_training_tells_what_it_will_cost_in_comments():
    process = smpo("train", "sd15-smpo", "--dry-run")
    recipe, cost = process.stdout.split("# sd15-smpo: what it will cost.")
    assert yaml.safe_load(process.stdout) == yaml.safe_load(recipe)
    assert "16.01 TFLOP" in cost and all(line.startswith("#") for line in cost.splitlines()[1:])
    unknown = smpo("train", "tiny-study", "--dry-run", "sampling.prompts=nowhere.txt")
    assert unknown.returncode == 0 and "# Its cost is not known yet: " in unknown.stdout
    assert "cost" not in smpo("cache", "sd15-smpo", "--dry-run").stdout


def test_dry_run_prints_the_resolved_recipe_with_the_override():
    process = smpo("train", "sd15-smpo", "training.batch_size=4", "--dry-run")
    assert process.returncode == 0
    assert "batch_size: 4\n" in process.stdout and "warmup_steps: 100" in process.stdout


def test_a_users_mistake_is_one_line_and_exit_code_1(tmp_path):
    process = smpo("train", "sd15-smpo", "training.stepz=4", cwd=tmp_path)
    assert process.returncode == 1
    assert process.stderr.startswith("error: training.stepz: unknown key;") and process.stderr.count("\n") == 1
    process = smpo("train", "sd15-smpo", cwd=tmp_path)
    assert process.returncode == 1
    assert process.stderr == (
        "error: data.source: pickapic_v2 does not exist; the stages before need it; correct the path, or name your "
        "pairs with data.source=...\n"
    )
    (tmp_path / "pairs.jsonl").write_text("{}")
    process = smpo("train", "sd15-smpo", "data.source=pairs.jsonl", cwd=tmp_path)
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "what pairs, score, label and cache should have made in runs/sd15-smpo" in process.stderr
    assert "run `smpo run sd15-smpo`" in process.stderr


def test_wrong_usage_is_exit_code_2():
    process = smpo("trian")
    assert process.returncode == 2
    assert "Did you mean 'train'?" in process.stderr


def test_version():
    assert smpo("--version").stdout.strip() == __version__


def test_show_lists_without_torch_and_explains_a_recipe(tmp_path):
    listing = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "smpo", "show"], capture_output=True, text=True, check=True
    )
    assert "\nsd15-smpo " in listing.stdout and " torch" not in listing.stderr
    process = smpo("show", "sd15-dpo", cwd=tmp_path)
    assert process.returncode == 0
    assert process.stdout.startswith("# Diffusion-DPO on SD1.5: ") and "\n# Built on sd15-smpo; " in process.stdout
    assert "\n# `smpo cost sd15-dpo` counts its UNet evaluations" in process.stdout
    process = smpo("show", "sd15-dpp", cwd=tmp_path)
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "no shipped recipe or sweep 'sd15-dpp'" in process.stderr and "Did you mean 'sd15-dpo'?" in process.stderr


def test_the_bar_shows_the_rate_of_this_run_and_of_each_image_set():
    """Resumed at 100 of 200 images, 10 images every 2 s: 5 images/s and 16 s left after 120; then a set at 20/s."""
    seconds, display = [0.0], Display()
    display.moves = True
    display.bars.get_time = lambda: seconds[0]
    with display.stage("generate") as progress:
        task = display.bars.tasks[0]
        assert RateColumn().render(task).plain == ""
        for done in (100, 110, 120):
            seconds[0] += 2
            progress("base", done, 200)
        assert RateColumn().render(task).plain == "5 images/s" and task.time_remaining == 16
        for done in (40, 80, 120):
            seconds[0] += 2
            progress("smpo", done, 200)
        assert RateColumn().render(task).plain == "20 images/s" and task.time_remaining == 4
    with display.stage("evaluate") as progress:
        for done in (1, 2, 3):
            seconds[0] += 1
            progress("clip, 1 images/s", done, 9)
        assert RateColumn().render(display.bars.tasks[0]).plain == ""
