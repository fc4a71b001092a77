"""Every scorer, loaded from its published layout with random weights, against independent references.

The references are plain functions written afresh (tests/rewards/references), evaluated in float64, and the original
packages' own answers for the same weights (tests/rewards/goldens). Networks are reduced, layouts are not.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smpo.rewards.aesthetic import Aesthetic
from smpo.rewards.clip import ClipScore
from smpo.rewards.hpsv2 import HpsV2
from smpo.rewards.imagereward import ImageReward
from smpo.rewards.pickscore import PickScore
from tests.rewards.goldens.cases import PROMPTS, picture, pixel_values
from tests.rewards.published import (
    golden,
    med_config,
    save_clip_folder,
    save_hpsv2,
    save_imagereward,
)
from tests.rewards.references import networks, weights

HPS_SEED, IR_SEED, OPENAI_SEED = 3, 5, 14  # of the goldens
RELATIVE = 1e-5


@pytest.fixture(scope="module")
def hps_tensors() -> dict[str, Tensor]:
    return weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_HPS), HPS_SEED)


@pytest.fixture(scope="module")
def blip_tensors() -> dict[str, Tensor]:
    return weights.random_tensors(weights.imagereward_shapes(weights.REDUCED_BLIP), IR_SEED)


@pytest.fixture(scope="module")
def hpsv2(hps_tensors: dict, clip_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> HpsV2:
    folder = save_hpsv2(tmp_path_factory.mktemp("hps"), hps_tensors)
    return HpsV2(source=str(folder), tokenizer=str(clip_vocabulary))


@pytest.fixture(scope="module")
def imagereward(blip_tensors: dict, bert_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageReward:
    folder = save_imagereward(tmp_path_factory.mktemp("ir"), blip_tensors, med_config(weights.REDUCED_BLIP))
    return ImageReward(source=str(folder), tokenizer=str(bert_vocabulary))


def relative_error(scores: Tensor, expected: Tensor | list[float]) -> float:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return ((scores.double() - expected).abs() / expected.abs()).max().item()


def clip_reference(tensors: dict, sizes: weights.ClipSizes, seed: int, activation: Callable) -> Tensor:
    pixels = pixel_values(seed, len(PROMPTS))
    return networks.clip_scores(networks.double(tensors), sizes, pixels, golden("clip")["scores"]["ids"], activation)


def test_hpsv2(hpsv2: HpsV2, hps_tensors: dict):
    scores = hpsv2.score(pixel_values(HPS_SEED, len(PROMPTS)), PROMPTS)
    assert relative_error(scores, golden("clip")["scores"]["reduced_gelu"]) < RELATIVE
    assert relative_error(scores, clip_reference(hps_tensors, weights.REDUCED_HPS, HPS_SEED, networks.gelu)) < RELATIVE
    assert scores.unique().numel() == len(PROMPTS)


def test_hpsv2_as_published_in_half_precision(hps_tensors: dict, clip_vocabulary: Path, tmp_path: Path):
    """The compressed file holds float16; scores are float32 computations on those rounded weights."""
    half = {name: tensor.half() for name, tensor in hps_tensors.items()}
    scorer = HpsV2(source=str(save_hpsv2(tmp_path, half)), tokenizer=str(clip_vocabulary))
    scores = scorer.score(pixel_values(HPS_SEED, len(PROMPTS)), PROMPTS)
    expected = clip_reference(half, weights.REDUCED_HPS, HPS_SEED, networks.gelu)
    assert relative_error(scores, expected) < RELATIVE
    assert relative_error(scores, clip_reference(hps_tensors, weights.REDUCED_HPS, HPS_SEED, networks.gelu)) > 1e-5


def test_hpsv2_of_a_data_parallel_training_and_of_a_file(hps_tensors: dict, hpsv2: HpsV2, tmp_path: Path):
    """Names behind `module.`, and the checkpoint given as a file."""
    folder = save_hpsv2(tmp_path, {f"module.{name}": tensor for name, tensor in hps_tensors.items()})
    other = replace(hpsv2, source=str(folder / "HPS_v2.1_compressed.pt"))
    pixels = pixel_values(1, 2)
    assert torch.equal(other.score(pixels, PROMPTS[:2]), hpsv2.score(pixels, PROMPTS[:2]))


def test_hpsv2_versions_are_two_files_of_one_source(hpsv2: HpsV2, hps_tensors: dict, tmp_path: Path):
    other = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_HPS), 99)
    folder = save_hpsv2(save_hpsv2(tmp_path, hps_tensors), other, name="HPS_v2_compressed.pt")
    new, old = replace(hpsv2, source=str(folder)), replace(hpsv2, source=str(folder), version="v2.0")
    pixels = pixel_values(1, 2)
    assert torch.equal(new.score(pixels, PROMPTS[:2]), hpsv2.score(pixels, PROMPTS[:2]))
    assert not torch.allclose(old.score(pixels, PROMPTS[:2]), new.score(pixels, PROMPTS[:2]), atol=1e-3)
    assert list(old.identity()["weights"]) == ["HPS_v2_compressed.pt"]


def test_imagereward(imagereward: ImageReward, blip_tensors: dict):
    pixels = pixel_values(IR_SEED, len(PROMPTS))
    scores = imagereward.score(pixels, PROMPTS)
    assert relative_error(scores, golden("imagereward")["scores"]["reduced"]) < RELATIVE
    assert relative_error(scores, imagereward_reference(blip_tensors, imagereward, pixels)) < RELATIVE


def test_imagereward_end_to_end(imagereward: ImageReward):
    """From picture and prompt to rating, by the original package's own `score`; two of the pictures are not square."""
    for size, expected in golden("imagereward")["scores"]["end_to_end"].items():
        image = picture(tuple(map(int, size.split("x"))))
        assert relative_error(imagereward([image] * len(PROMPTS), PROMPTS), expected) < RELATIVE, size


def test_imagereward_epsilon(imagereward: ImageReward, blip_tensors: dict, tmp_path: Path):
    """Embeddings 500 times fainter make the image tower's LayerNorm eps count: 1e-5 for 1e-6 is seen only here."""
    faint = {name: tensor * 2e-3 if any(part in name for part in ("cls_token", "pos_embed", "patch_embed")) else tensor
             for name, tensor in blip_tensors.items()}
    folder = save_imagereward(tmp_path, faint, med_config(weights.REDUCED_BLIP))
    scores = replace(imagereward, source=str(folder)).score(pixel_values(IR_SEED, len(PROMPTS)), PROMPTS)
    assert relative_error(scores, golden("imagereward")["scores"]["reduced_faint"]) < RELATIVE


def imagereward_reference(tensors: dict, scorer: ImageReward, pixels: Tensor) -> Tensor:
    tokens = [scorer._model._tokens(prompt) for prompt in PROMPTS]
    ids, mask = torch.stack([t.ids for t in tokens]), torch.stack([t.mask for t in tokens])
    return networks.imagereward_scores(networks.double(tensors), weights.REDUCED_BLIP, pixels, ids, mask)


@pytest.fixture(scope="module")
def openai_folder(clip_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_OPENAI), OPENAI_SEED)
    folder = save_clip_folder(tmp_path_factory.mktemp("openai"), tensors, vision_head=64, activation="quick_gelu")
    return copy_vocabulary(clip_vocabulary, folder)


def copy_vocabulary(source: Path, folder: Path) -> Path:
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_openai_clip(openai_folder: Path):
    """By openai-clip's own class, and by the reference with QuickGELU."""
    scorer = ClipScore(preset="vit-l-14-openai", source=str(openai_folder))
    scores = scorer.score(pixel_values(OPENAI_SEED, len(PROMPTS)), PROMPTS)
    assert relative_error(scores, golden("imagereward")["scores"]["openai"]["cosines"]) < RELATIVE
    tensors = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_OPENAI), OPENAI_SEED)
    expected = clip_reference(tensors, weights.REDUCED_OPENAI, OPENAI_SEED, networks.quick_gelu)
    assert relative_error(scores, expected) < RELATIVE


def test_original_clipscore(openai_folder: Path):
    """2.5 max(cosine, 0) with "A photo depicts " before the prompt."""
    plain = ClipScore(preset="vit-l-14-openai", source=str(openai_folder))
    scorer = ClipScore(preset="vit-b-32-openai", source=str(openai_folder))
    prompts = [f"number {n}" for n in range(40)]
    pixels = pixel_values(1, 1).expand(40, -1, -1, -1)
    cosines = plain.score(pixels, [f"A photo depicts {prompt}" for prompt in prompts])
    assert cosines.min() < 0 < cosines.max()
    assert torch.equal(scorer.score(pixels, prompts), 2.5 * cosines.clamp(min=0))
    assert (scorer.units, scorer.bounds) == ("2.5 max(cosine, 0)", (0.0, 2.5))


@pytest.fixture(scope="module")
def laion_folder(hps_tensors: dict, clip_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_clip_folder(tmp_path_factory.mktemp("laion"), hps_tensors, vision_head=80, activation="gelu")
    return copy_vocabulary(clip_vocabulary, folder)


def test_paper_clip_is_hpsv2s_network_and_pipeline(hpsv2: HpsV2, laion_folder: Path):
    """The default preset differs from HPSv2 in nothing but the weights."""
    scorer = ClipScore(preset="vit-h-14-laion2b", source=str(laion_folder))
    images = [picture(size) for size in ((300, 225), (224, 224), (100, 60))]
    prompts = ["caf\u00e9 &amp; cat\u2019s", *PROMPTS[:2]]
    assert torch.equal(scorer(images, prompts), hpsv2(images, prompts))
    assert scorer.preprocessing == hpsv2.preprocessing


def test_pickscore(laion_folder: Path):
    """PickScore is the same network with transformers' preprocessing and tokenizer."""
    scorer = PickScore(source=str(laion_folder), processor=str(laion_folder))
    scores = scorer.score(pixel_values(HPS_SEED, len(PROMPTS)), PROMPTS)
    assert relative_error(scores, golden("clip")["scores"]["reduced_gelu"]) < RELATIVE


def test_aesthetic(tmp_path: Path):
    """By openai-clip's image tower and the original's head; the text half of the CLIP folder is left alone."""
    scorer = aesthetic(tmp_path)
    scores = scorer.score(pixel_values(IR_SEED, len(PROMPTS)), PROMPTS)
    assert relative_error(scores, golden("imagereward")["scores"]["aesthetic"]["aesthetic"]) < RELATIVE
    tensors = networks.double(weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_AESTHETIC), IR_SEED))
    pixels = pixel_values(IR_SEED, 3)
    features = networks.image_features(tensors, weights.REDUCED_AESTHETIC, pixels, networks.quick_gelu)
    head = networks.double(weights.random_tensors(weights.head_shapes(768), IR_SEED))
    expected = networks.affine_head(head, features / features.norm(dim=-1, keepdim=True))
    assert relative_error(scores, expected) < RELATIVE
    assert torch.equal(scorer.score(pixels, ["other"] * 3), scores)


def aesthetic(folder: Path) -> Aesthetic:
    tensors = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_AESTHETIC), IR_SEED)
    save_clip_folder(folder, tensors, vision_head=64, activation="quick_gelu")
    torch.save(weights.random_tensors(weights.head_shapes(768), IR_SEED), folder / "head.pth")
    return Aesthetic(source=str(folder / "head.pth"), clip=str(folder))


@pytest.mark.parametrize("name", ["hpsv2", "imagereward"])
def test_a_row_depends_on_its_own_input_only(name: str, request: pytest.FixtureRequest):
    scorer, pixels = request.getfixturevalue(name), pixel_values(8, len(PROMPTS))
    alone = torch.cat([scorer.score(pixels[n : n + 1], [prompt]) for n, prompt in enumerate(PROMPTS)])
    assert torch.allclose(scorer.score(pixels, PROMPTS), alone, atol=2e-6, rtol=0)
    assert torch.allclose(scorer.score(pixels.flip(0), PROMPTS[::-1]).flip(0), alone, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["hpsv2", "imagereward"])
@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_is_near_and_returned_in_float32(name: str, dtype: str, bound: float, request):
    """What it costs is in docs/scorers.md; the float32 head of ImageReward stays one."""
    scorer, pixels = request.getfixturevalue(name), pixel_values(8, len(PROMPTS))
    low, full = replace(scorer, dtype=dtype).score(pixels, PROMPTS), scorer.score(pixels, PROMPTS)
    assert low.dtype == torch.float32
    assert 0 < (low - full).abs().max() < bound
