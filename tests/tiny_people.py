"""A small pair set of the tiny world on which simulated people have voted."""

from pathlib import Path

import numpy as np

from examples.tiny_world.train_clip import changed_in_one
from smpo.tiny import annotators
from smpo.tiny.prompts import phrase, sample_scenes
from smpo.tiny.scenes import draw
from tests.data.pictures import write_jsonl


def write_people(folder: Path, num: int) -> Path:
    """A jsonl file with label_0 and vote_share_0: `num` pairs that each miss an attribute, 4 annotators a pair."""
    rng, rows = np.random.default_rng(0), []
    (folder / "drawn").mkdir(parents=True)
    for row, asked in enumerate(sample_scenes(num, seed=0, split="train")):
        names = [f"{row}-{side}.png" for side in (0, 1)]
        for name in names:
            draw(changed_in_one(asked, rng), rng).save(folder / "drawn" / name)
        rows.append({"prompt": phrase(asked, rng), "image_0": names[0], "image_1": names[1]})
    drawn, voted = write_jsonl(folder / "drawn" / "pairs.jsonl", rows), folder / "people.jsonl"
    annotators.main([str(drawn), str(voted), "--votes", "4", "--sharpness", "10"])
    return voted
