"""Full-size scorers with random weights, a process for each step.

    python -m tests.rewards.full_size make NAME FOLDER; python -m tests.rewards.full_size score NAME FOLDER DTYPE
"""

import json
import resource
import sys
from pathlib import Path

import torch

from smpo.rewards.aesthetic import Aesthetic
from smpo.rewards.hpsv2 import HpsV2
from smpo.rewards.imagereward import ImageReward
from smpo.rewards.learnt import LearntScorer
from tests.rewards.goldens.cases import PROMPTS, pixel_values
from tests.rewards.published import (
    golden,
    med_config,
    save_bert_vocabulary,
    save_clip_folder,
    save_clip_vocabulary,
    save_hpsv2,
    save_imagereward,
)
from tests.rewards.references import networks, weights

SEEDS = {"hpsv2": 3, "imagereward": 5, "aesthetic": 5}


def make(name: str, folder: Path) -> float:
    """The score expected of the checkpoint that this writes: by the original package, or by the float64 reference."""
    if name == "hpsv2":
        save_clip_vocabulary(folder)
        save_hpsv2(folder, weights.random_tensors(weights.open_clip_shapes(weights.VIT_H), SEEDS[name]))
        return golden("clip")["scores"]["full_gelu"][0]
    if name == "imagereward":
        save_bert_vocabulary(folder)
        tensors = weights.random_tensors(weights.imagereward_shapes(weights.BLIP_L), SEEDS[name])
        save_imagereward(folder, tensors, med_config(weights.BLIP_L))
        return golden("imagereward")["scores"]["full"][0]
    tensors = weights.random_tensors(weights.open_clip_shapes(weights.VIT_L), SEEDS[name])
    save_clip_folder(folder, tensors, vision_head=64, activation="quick_gelu")
    head = weights.random_tensors(weights.head_shapes(768), SEEDS[name])
    torch.save(head, folder / "head.pth")
    vision = networks.double({key: tensor for key, tensor in tensors.items() if key.startswith("visual.")})
    features = networks.image_features(vision, weights.VIT_L, pixel_values(SEEDS[name], 1), networks.quick_gelu)
    return networks.affine_head(networks.double(head), features / features.norm(dim=-1, keepdim=True)).item()


def scorer(name: str, folder: Path, dtype: str) -> LearntScorer:
    """The scorer of a folder that `make` wrote."""
    source = str(folder)
    if name == "hpsv2":
        return HpsV2(source=source, tokenizer=source, dtype=dtype)
    if name == "imagereward":
        return ImageReward(source=source, tokenizer=source, dtype=dtype)
    return Aesthetic(source=str(folder / "head.pth"), clip=source, dtype=dtype)


def main() -> None:
    action, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if action == "make":
        result = {"expected": make(name, folder)}
    else:
        score = scorer(name, folder, sys.argv[4]).score(pixel_values(SEEDS[name], 1), PROMPTS[:1]).item()
        result = {"score": score, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
