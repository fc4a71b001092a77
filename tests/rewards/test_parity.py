"""Every scorer, loaded from its published layout with random weights, against independent references.

The references are plain functions written afresh (tests/rewards/references), evaluated in float64, and the original
packages' own answers for the same weights (tests/rewards/goldens). Networks are reduced, layouts are not.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from smpo.core.artefacts import hash_file
from smpo.core.precision import precision_switches
from smpo.rewards import learnt
from smpo.rewards.affine_head import AffineHead
from smpo.rewards.clip import ClipScore
from smpo.rewards.weights import load_model, read_tensors, shapes_of
from tests.rewards.goldens.cases import PROMPTS, picture, pixel_values
from tests.rewards.parity import (
    HPS_SEED,
    IR_SEED,
    Case,
    clip_reference,
    reduced_cases,
    relative_error,
)
from tests.rewards.published import golden, med_config, save_hpsv2, save_imagereward
from tests.rewards.references import networks, weights

NAMES = ("pickscore", "hpsv2", "imagereward", "aesthetic", "clip vit-h-14-laion2b", "clip vit-l-14-openai")
RELATIVE = 1e-5
REAL_HEAD = Path(__file__).parents[3] / "shared" / "data" / "sac+logos+ava1-l14-linearMSE.pth"

each_scorer = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    found = reduced_cases(tmp_path_factory.mktemp("reduced"))
    assert tuple(found) == NAMES
    return found


@each_scorer
def test_float32_scores_are_the_originals_and_the_references(name: str, cases: dict[str, Case]):
    case = cases[name]
    scores = case.scorer.score(case.pixels, PROMPTS)
    assert relative_error(scores, case.original) < RELATIVE
    assert relative_error(scores, case.reference) < RELATIVE
    assert (scores.dtype, scores.shape, scores.unique().numel()) == (torch.float32, (3,), 3)


@each_scorer
def test_a_row_depends_on_its_own_input_only(name: str, cases: dict[str, Case]):
    scorer, pixels = cases[name].scorer, cases[name].pixels
    alone = torch.cat([scorer.score(pixels[n : n + 1], [prompt]) for n, prompt in enumerate(PROMPTS)])
    assert torch.allclose(scorer.score(pixels, PROMPTS), alone, atol=2e-6, rtol=0)
    assert torch.allclose(scorer.score(pixels.flip(0), PROMPTS[::-1]).flip(0), alone, atol=2e-6, rtol=0)


@each_scorer
@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_is_near_and_returned_in_float32(name: str, dtype: str, bound: float, cases: dict[str, Case]):
    """What it costs is in docs/scorers.md."""
    case = cases[name]
    low = replace(case.scorer, dtype=dtype).score(case.pixels, PROMPTS)
    assert low.dtype == torch.float32
    assert 0 < (low - case.reference).abs().max() < bound


@each_scorer
def test_a_callers_precision_changes_nothing(name: str, cases: dict[str, Case]):
    case = cases[name]
    plain, caller = case.scorer.score(case.pixels, PROMPTS), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(case.scorer.score(case.pixels, PROMPTS), plain)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(caller)


def test_switches_are_off_inside_and_restored_even_after_an_error():
    before = [getattr(place, attribute) for place, attribute, _ in precision_switches(tf32=False)]
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with pytest.raises(RuntimeError), learnt.full_precision(torch.device("cpu")):
            assert all(getattr(place, attribute) == exact for place, attribute, exact in precision_switches(tf32=False))
            assert not torch.backends.cuda.matmul.allow_tf32
            raise RuntimeError
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    for (place, attribute, _), value in zip(precision_switches(tf32=False), before, strict=True):
        setattr(place, attribute, value)


@each_scorer
def test_identity_names_every_file(name: str, cases: dict[str, Case]):
    scorer = cases[name].scorer
    identity = scorer.identity()
    assert all(len(digest) == 64 for digest in identity["weights"].values()) and identity["weights"]
    assert bool(identity["tokenizer"]) == (name != "aesthetic")
    assert (identity["name"], identity["units"]) == (name.split()[0], scorer.units)
    assert identity["preprocessing"] == scorer.preprocessing.describe() and "device" not in identity
    assert identity != replace(scorer, dtype="bfloat16").identity()


def test_hpsv2_as_published_in_half_precision(cases: dict[str, Case], tmp_path: Path):
    """The compressed file holds float16; scores are float32 computations on those rounded weights."""
    tensors = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_HPS), HPS_SEED)
    half = {name: tensor.half() for name, tensor in tensors.items()}
    case = cases["hpsv2"]
    scores = replace(case.scorer, source=str(save_hpsv2(tmp_path, half))).score(case.pixels, PROMPTS)
    ids = golden("clip")["scores"]["ids"]
    expected = networks.clip_scores(networks.double(half), weights.REDUCED_HPS, case.pixels, ids, networks.gelu)
    assert relative_error(scores, expected) < RELATIVE
    assert relative_error(scores, case.reference) > RELATIVE


def test_hpsv2_of_a_data_parallel_training_and_of_a_file(cases: dict[str, Case], tmp_path: Path):
    """Names behind `module.`, and the checkpoint given as a file."""
    case = cases["hpsv2"]
    tensors = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_HPS), HPS_SEED)
    folder = save_hpsv2(tmp_path, {f"module.{name}": tensor for name, tensor in tensors.items()})
    other = replace(case.scorer, source=str(folder / "HPS_v2.1_compressed.pt"))
    assert torch.equal(other.score(case.pixels, PROMPTS), case.scorer.score(case.pixels, PROMPTS))


def test_hpsv2_versions_are_two_files_of_one_source(cases: dict[str, Case], tmp_path: Path):
    tensors = weights.random_tensors(weights.open_clip_shapes(weights.REDUCED_HPS), HPS_SEED + 1)
    folder, case = save_hpsv2(tmp_path, tensors, name="HPS_v2_compressed.pt"), cases["hpsv2"]
    old = replace(case.scorer, source=str(folder), version="v2.0")
    assert relative_error(old.score(case.pixels, PROMPTS), case.reference) > 0.1
    assert list(old.identity()["weights"]) == ["HPS_v2_compressed.pt"]


def test_imagereward_end_to_end(cases: dict[str, Case]):
    """From picture and prompt to rating, by the original package's own `score`; two of the pictures are not square."""
    for size, expected in golden("imagereward")["scores"]["end_to_end"].items():
        image = picture(tuple(map(int, size.split("x"))))
        scores = cases["imagereward"].scorer([image] * len(PROMPTS), PROMPTS)
        assert relative_error(scores, expected) < RELATIVE, size


def test_imagereward_epsilon(cases: dict[str, Case], tmp_path: Path):
    """Embeddings 500 times fainter make the image tower's LayerNorm eps count: 1e-5 for 1e-6 is seen only here."""
    tensors = weights.random_tensors(weights.imagereward_shapes(weights.REDUCED_BLIP), IR_SEED)
    faint = {name: tensor * 2e-3 if any(part in name for part in ("cls_token", "pos_embed", "patch_embed")) else tensor
             for name, tensor in tensors.items()}
    folder = save_imagereward(tmp_path, faint, med_config(weights.REDUCED_BLIP))
    scores = replace(cases["imagereward"].scorer, source=str(folder)).score(cases["imagereward"].pixels, PROMPTS)
    assert relative_error(scores, golden("imagereward")["scores"]["reduced_faint"]) < RELATIVE


def test_the_reference_sees_the_activation():
    """GELU for QuickGELU, or the reverse, is no rounding error."""
    right = clip_reference(weights.REDUCED_HPS, HPS_SEED, networks.gelu)
    assert relative_error(clip_reference(weights.REDUCED_HPS, HPS_SEED, networks.quick_gelu), right) > 1e-3


def test_original_clipscore(cases: dict[str, Case]):
    """2.5 max(cosine, 0) with "A photo depicts " before the prompt."""
    plain = cases["clip vit-l-14-openai"].scorer
    scorer = ClipScore(preset="vit-b-32-openai", source=plain.source)
    prompts = [f"number {n}" for n in range(12)]
    pixels = pixel_values(1, 1).expand(len(prompts), -1, -1, -1)
    cosines = plain.score(pixels, [f"A photo depicts {prompt}" for prompt in prompts])
    assert cosines.min() < 0 < cosines.max()
    assert torch.equal(scorer.score(pixels, prompts), 2.5 * cosines.clamp(min=0))
    assert (scorer.units, scorer.bounds) == ("2.5 max(cosine, 0)", (0.0, 2.5))


def test_paper_clip_is_hpsv2s_network_and_pipeline(cases: dict[str, Case]):
    """The default preset differs from HPSv2 in nothing but the weights, the same ones here."""
    images = [picture(size) for size in ((300, 225), (224, 224), (100, 60))]
    prompts = ["caf\u00e9 &amp; cat\u2019s", *PROMPTS[:2]]
    assert torch.equal(cases["clip vit-h-14-laion2b"].scorer(images, prompts), cases["hpsv2"].scorer(images, prompts))


def test_aesthetic_does_not_read_the_prompt(cases: dict[str, Case]):
    case = cases["aesthetic"]
    assert torch.equal(case.scorer.score(case.pixels, ["other"] * 3), case.scorer.score(case.pixels, PROMPTS))


@pytest.mark.skipif(not REAL_HEAD.exists(), reason="the published head is not beside the checkout")
def test_the_real_aesthetic_head():
    """Pinned values of the published weights: equal entries, first basis vector, ramp, nothing (only the bias)."""
    tensors = read_tensors([REAL_HEAD])
    shapes = shapes_of(tensors)
    head = load_model(lambda: AffineHead(shapes), tensors, dtype=torch.float32, origin=REAL_HEAD,
                      device=torch.device("cpu"))
    ramp = torch.arange(1.0, 769.0)
    features = torch.stack([torch.ones(768) / 768**0.5, torch.eye(768)[0], ramp / ramp.norm(), torch.zeros(768)])
    assert head(features).tolist() == pytest.approx([4.883285, 4.545053, 4.420676, 5.236646], abs=2e-6)
    assert hash_file(REAL_HEAD) == "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
