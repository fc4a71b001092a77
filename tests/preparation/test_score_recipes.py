"""`smpo score` by recipes: several scorers, labels by any of them, and the launcher."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from smpo.pipeline.config import Recipe, load_recipe
from smpo.pipeline.stages import check_pairs, label_winners, score_images
from smpo.preparation.label import LabelTable
from smpo.preparation.score import ScoreTable
from smpo.tiny.prompts import phrase, sample_scenes
from smpo.tiny.scenes import draw
from tests.data.pictures import write_jsonl

REWARD, CLIP = ("package://smpo.tiny/weights/tiny-reward", "package://smpo.tiny/weights/tiny-clip")
SCORERS = {"pickscore": f"{{name: pickscore, source: '{REWARD}', processor: '{REWARD}'}}",
           "clip": f"{{name: clip, source: '{CLIP}'}}"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs: the scene that was asked for, and another one."""
    root, rows = tmp_path_factory.mktemp("source"), []
    scenes = sample_scenes(7, seed=0, split="train")
    for row, (asked, other) in enumerate(zip(scenes, scenes[1:], strict=False)):
        for side, scene in enumerate((asked, other)):
            draw(scene, seed=row).save(root / f"{row}-{side}.png")
        prompt = phrase(asked, np.random.default_rng(row))
        rows.append({"prompt": prompt, "image_0": f"{row}-0.png", "image_1": f"{row}-1.png"})
    return write_jsonl(root / "pairs.jsonl", rows)


def recipe_of(source: Path, work: Path, label_scorer: str) -> Recipe:
    other = next(name for name in SCORERS if name != label_scorer)
    return load_recipe("tiny-demo", [
        "sampling=null", f"data.source={source}", f"paths.workdir={work}", f"paths.label={work}/label-{label_scorer}",
        f"scorer={SCORERS[label_scorer]}", f"scoring.also={{{other}: {SCORERS[other]}}}", "scoring.block_size=2",
    ])


def test_labels_by_any_scorer_of_one_pass(source: Path, tmp_path: Path):
    progress = []
    first = recipe_of(source, tmp_path, "pickscore")
    check_pairs(first, lambda *_: None)
    output = score_images(first, lambda *call: progress.append(call))
    assert output.startswith("6 pairs scored by pickscore in [") and ", clip in [" in output
    assert output.endswith(f"; in {tmp_path / 'score'} (6 blocks computed)") and progress[-1][1:] == (6, 6)
    second = recipe_of(source, tmp_path, "clip")
    assert score_images(second, lambda *_: None).endswith("(already done)")
    for recipe in (first, second):
        label_winners(recipe, lambda *_: None)
    tables = [LabelTable.open(tmp_path / f"label-{name}") for name in ("pickscore", "clip")]
    assert all(table.winner.tolist() == [0] * 6 for table in tables)
    assert not torch.equal(tables[0].p_winner, tables[1].p_winner)


@pytest.mark.slow
def test_torchrun_scores_as_one_process_does(source: Path, tmp_path: Path):
    check_pairs(recipe_of(source, tmp_path / "one", "pickscore"), lambda *_: None)
    check_pairs(recipe_of(source, tmp_path / "two", "pickscore"), lambda *_: None)
    score_images(recipe_of(source, tmp_path / "one", "pickscore"), lambda *_: None)
    recipe = [f"paths.workdir={tmp_path / 'two'}", "sampling=null", f"data.source={source}", "scoring.block_size=2",
              f"scorer={SCORERS['pickscore']}", f"scoring.also={{clip: {SCORERS['clip']}}}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "smpo",
               "score", "tiny-demo", *recipe]
    environment = {**os.environ, "PYTHONPATH": str(Path("src").resolve()), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("6 pairs scored by pickscore in [") == 1
    for name in SCORERS:
        one, two = (ScoreTable.open(tmp_path / place / "score" / name) for place in ("one", "two"))
        assert one.table.equals(two.table) and one.fingerprint == two.fingerprint
