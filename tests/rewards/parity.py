"""Prints the reduced half of the parity table in docs/scorers.md: python -m tests.rewards.parity

Each error is the largest over three images and prompts, relative to the expected score (for half precision also the
largest absolute one, in brackets). The reference is evaluated in float64, the original package in float32.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from smpo.rewards.aesthetic import Aesthetic
from smpo.rewards.clip import ClipScore
from smpo.rewards.hpsv2 import HpsV2
from smpo.rewards.imagereward import ImageReward
from smpo.rewards.learnt import LearntScorer
from smpo.rewards.pickscore import PickScore
from smpo.rewards.settings import DTYPES
from smpo.rewards.tokenisation import ImageRewardTokens
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

HPS_SEED, IR_SEED, OPENAI_SEED = 3, 5, 14  # of the goldens


@dataclass(frozen=True)
class Case:
    """A reduced scorer, the pixel values to score for PROMPTS, and what two independent sources say."""

    scorer: LearntScorer
    pixels: Tensor
    reference: Tensor
    original: list[float]


def relative_error(scores: Tensor, expected: Tensor | list[float]) -> float:
    """The largest |score - expected| / |expected|."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return ((scores.double() - expected).abs() / expected.abs()).max().item()


def clip_reference(sizes: weights.ClipSizes, seed: int, activation: networks.Activation) -> Tensor:
    """Cosines by the reference, shape (3,), float64."""
    tensors = networks.double(weights.random_tensors(weights.open_clip_shapes(sizes), seed))
    pixels = pixel_values(seed, len(PROMPTS))
    return networks.clip_scores(tensors, sizes, pixels, golden("clip")["scores"]["ids"], activation)


def imagereward_reference(vocabulary: Path) -> Tensor:
    """Ratings by the reference, shape (3,), float64."""
    tensors = weights.random_tensors(weights.imagereward_shapes(weights.REDUCED_BLIP), IR_SEED)
    tokens = [ImageRewardTokens(vocabulary)(prompt) for prompt in PROMPTS]
    ids, mask = torch.stack([token.ids for token in tokens]), torch.stack([token.mask for token in tokens])
    pixels = pixel_values(IR_SEED, len(PROMPTS))
    return networks.imagereward_scores(networks.double(tensors), weights.REDUCED_BLIP, pixels, ids, mask)


def aesthetic_reference() -> Tensor:
    """Ratings by the reference, shape (3,), float64."""
    sizes = weights.REDUCED_AESTHETIC
    tensors = networks.double(weights.random_tensors(weights.open_clip_shapes(sizes), IR_SEED))
    features = networks.image_features(tensors, sizes, pixel_values(IR_SEED, len(PROMPTS)), networks.quick_gelu)
    head = networks.double(weights.random_tensors(weights.head_shapes(768), IR_SEED))
    return networks.affine_head(head, features / features.norm(dim=-1, keepdim=True))


def reduced_cases(folder: Path) -> dict[str, Case]:
    """Every learnt scorer at reduced size, its checkpoint written below `folder` in the published layout."""
    words, bert = save_clip_vocabulary(folder / "words"), save_bert_vocabulary(folder / "bert")
    laion = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_HPS), HPS_SEED)
    openai = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_OPENAI), OPENAI_SEED)
    blip = weights.random_tensors(weights.imagereward_shapes(weights.REDUCED_BLIP), IR_SEED)
    tower = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_AESTHETIC), IR_SEED)
    hps = save_hpsv2(folder / "hps", laion)
    laion_folder = save_clip_folder(save_clip_vocabulary(folder / "laion"), laion, vision_head=80, activation="gelu")
    openai_folder = save_clip_folder(
        save_clip_vocabulary(folder / "openai"), openai, vision_head=64, activation="quick_gelu")
    reward = save_imagereward(folder / "ir", blip, med_config(weights.REDUCED_BLIP))
    save_clip_folder(folder / "tower", tower, vision_head=64, activation="quick_gelu")
    torch.save(weights.random_tensors(weights.head_shapes(768), IR_SEED), folder / "head.pth")
    pixels = {seed: pixel_values(seed, len(PROMPTS)) for seed in (HPS_SEED, IR_SEED, OPENAI_SEED)}
    cosines = clip_reference(weights.REDUCED_HPS, HPS_SEED, networks.gelu)
    scores, others = golden("clip")["scores"], golden("imagereward")["scores"]
    paper = ClipScore(preset="vit-h-14-laion2b", source=str(laion_folder))
    return {
        "pickscore": Case(PickScore(source=str(laion_folder), processor=str(laion_folder)), pixels[HPS_SEED], cosines,
                          scores["reduced_gelu"]),
        "hpsv2": Case(HpsV2(source=str(hps), tokenizer=str(words)), pixels[HPS_SEED], cosines, scores["reduced_gelu"]),
        "imagereward": Case(ImageReward(source=str(reward), tokenizer=str(bert)), pixels[IR_SEED],
                            imagereward_reference(bert), others["reduced"]),
        "aesthetic": Case(Aesthetic(source=str(folder / "head.pth"), clip=str(folder / "tower")), pixels[IR_SEED],
                          aesthetic_reference(), others["aesthetic"]["aesthetic"]),
        "clip vit-h-14-laion2b": Case(paper, pixels[HPS_SEED], cosines, scores["reduced_gelu"]),
        "clip vit-l-14-openai": Case(
            replace(paper, preset="vit-l-14-openai", source=str(openai_folder)), pixels[OPENAI_SEED],
            clip_reference(weights.REDUCED_OPENAI, OPENAI_SEED, networks.quick_gelu), others["openai"]["cosines"]),
    }


def main() -> None:
    """The table, as Markdown."""
    print("| scorer | original | reference | bfloat16 | float16 |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, case in reduced_cases(Path(folder)).items():
            scores = {dtype: replace(case.scorer, dtype=dtype).score(case.pixels, PROMPTS) for dtype in DTYPES}
            exact = [relative_error(scores["float32"], expected) for expected in (case.original, case.reference)]
            cells = [f"{error:.1e}" for error in exact]
            for dtype in ("bfloat16", "float16"):
                absolute = (scores[dtype] - case.reference).abs().max()
                cells.append(f"{relative_error(scores[dtype], case.reference):.1e} ({absolute:.1e})")
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
