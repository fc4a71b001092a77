"""The public functions of `smpo`, on the embedded models and on real images."""

import inspect
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageFilter

import smpo
from smpo.core.errors import ConfigError, DataError
from smpo.tiny.prompts import phrase, sample_scenes
from smpo.tiny.scenes import draw

CLIP = {"name": "clip", "source": "package://smpo.tiny/weights/tiny-clip"}
NUM = 12


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    rng = np.random.default_rng(3)
    return [phrase(scene, rng) for scene in sample_scenes(NUM, seed=5, split="train")]


@pytest.fixture(scope="module")
def sharp() -> list[Image.Image]:
    return [draw(scene, number) for number, scene in enumerate(sample_scenes(NUM, seed=5, split="train"))]


@pytest.fixture(scope="module")
def blurred(sharp: list[Image.Image]) -> list[Image.Image]:
    return [image.filter(ImageFilter.GaussianBlur(6)) for image in sharp]


def test_every_public_name_exists_is_documented_and_listed() -> None:
    assert sorted(smpo.__all__) == list(smpo.__all__) == dir(smpo)
    for name in smpo.__all__:
        value = getattr(smpo, name)
        if name != "__version__":
            assert inspect.isfunction(value) and len(inspect.getdoc(value)) > 40
            assert name in smpo.__doc__, f"the docstring of smpo does not list {name}"
    with pytest.raises(AttributeError, match="module 'smpo' has no attribute 'resolve'"):
        smpo.resolve  # noqa: B018


def test_the_names_of_type_checkers_are_those_of_the_running_module() -> None:
    """The TYPE_CHECKING block and the table of homes name the same objects."""
    tree = inspect.getsource(smpo).partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
    namespace: dict[str, object] = {}
    exec(inspect.cleandoc(tree), namespace)
    assert {name: namespace[name] for name in smpo.__all__ if name != "__version__"} == {
        name: getattr(smpo, name) for name in smpo.__all__ if name != "__version__"
    }


def test_the_version_is_that_of_the_project_and_its_citation() -> None:
    root = Path(__file__).parents[1]
    assert f'\nversion = "{smpo.__version__}"\n' in (root / "pyproject.toml").read_text()
    assert yaml.safe_load((root / "CITATION.cff").read_text())["version"] == smpo.__version__
    assert f"\n## {smpo.__version__} - " in (root / "CHANGELOG.md").read_text()


def test_importing_smpo_and_loading_a_recipe_imports_no_torch() -> None:
    code = "import sys, smpo; smpo.load_recipe; dir(smpo); print([n for n in ('torch', 'scipy') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_scores_of_pil_images_equal_those_of_files_and_of_the_scorer_itself(
    sharp: list[Image.Image], prompts: list[str], tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(NUM)]
    for image, file in zip(sharp, files, strict=True):
        image.save(file)
    scorer = smpo.load_scorer(**CLIP)
    scores = smpo.score_images(scorer, sharp, prompts)
    assert scores.shape == (NUM,) and scores.dtype == np.float32 and scorer.units == "cosine"
    np.testing.assert_array_equal(scores, scorer(sharp, prompts).numpy())
    np.testing.assert_array_equal(scores, smpo.score_images(scorer, [str(file) for file in files], prompts))
    np.testing.assert_allclose(scores, smpo.score_images(scorer, files, prompts, batch_size=5), atol=1e-6)
    one = smpo.score_images(scorer, sharp, prompts[0])
    np.testing.assert_array_equal(one, scorer(sharp, [prompts[0]] * NUM).numpy())


def test_bad_calls_of_scorers_are_named(sharp: list[Image.Image], prompts: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown scorer 'clipp'; known: .* Did you mean 'clip'?"):
        smpo.load_scorer("clipp")
    with pytest.raises(ConfigError, match="scorer.sourc: unknown key; .* Did you mean 'source'?"):
        smpo.load_scorer("clip", sourc="x")
    with pytest.raises(ValueError, match="expected one prompt per image, got 12 images and 3 prompts"):
        smpo.score_images("verifier", sharp, prompts[:3])
    with pytest.raises(ValueError, match="got 0 images and 0 prompts"):
        smpo.score_images("verifier", [], "a red cat")
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        smpo.score_images("verifier", sharp, prompts, batch_size=0)
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        smpo.score_images("verifier", [tmp_path / "no.png"], prompts[:1])


def test_sharp_images_beat_blurred_ones(
    sharp: list[Image.Image], blurred: list[Image.Image], prompts: list[str]
) -> None:
    result = smpo.compare_images(sharp, blurred, prompts, scorer="verifier")
    assert result.model.value > 0.95 > result.baseline.value + 0.2
    assert result.win_rate.rate > 0.9 and result.win_rate.low > 0.5 and result.win_rate.p_value < 0.05
    assert 0 < result.mean_difference.low <= result.mean_difference.value <= result.mean_difference.high
    scores = [smpo.score_images("verifier", images, prompts) for images in (sharp, blurred)]
    assert smpo.compare(*scores) == result
    turned = smpo.compare(*reversed(scores))
    assert turned.win_rate.rate == pytest.approx(1 - result.win_rate.rate)
    assert turned.mean_difference.value == pytest.approx(-result.mean_difference.value)


def test_several_images_of_a_prompt_are_one_group() -> None:
    """Copies of each image bring no precision: the intervals are those of one image a prompt."""
    rng = np.random.default_rng(0)
    before, gain = rng.normal(size=(40, 1)), rng.normal(0.5, 1, size=(40, 1))
    single, copies = (smpo.compare(before + gain, before), smpo.compare(
        np.repeat(before + gain, 3, axis=1), np.repeat(before, 3, axis=1)))
    assert copies.win_rate.low == pytest.approx(single.win_rate.low, rel=0.01)
    assert copies.mean_difference.low == pytest.approx(single.mean_difference.low)


def test_compare_refuses_what_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        smpo.compare([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="finite"):
        smpo.compare([1.0, float("nan")], [1.0, 2.0])


def test_a_recipe_is_loaded_and_its_stages_run(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red cat\na blue house\n")
    recipe = smpo.load_recipe("tiny-demo", [
        f"paths.workdir={tmp_path}", f"sampling.prompts={prompts}", "sampling.num_inference_steps=1",
        "generation.prompts=[a]", "scoring.workers=0",
    ])
    calls: list[tuple[object, ...]] = []
    lines = smpo.run_recipe(recipe, ["sample", "pairs"], progress=lambda *values: calls.append(values))
    assert list(lines) == ["sample", "pairs"] and "2 pairs" in lines["sample"] and calls
    assert (tmp_path / "pairs" / "manifest.json").exists() and not (tmp_path / "score").exists()
    again = smpo.run_recipe(recipe, ["sample"])
    assert "0 images" in again["sample"]
    with pytest.raises(ConfigError, match="`smpo score smpo` and so on first, in this order"):
        smpo.run_recipe(recipe, ["train"])
    with pytest.raises(ConfigError, match="unknown stage 'trian'; .* Did you mean 'train'?"):
        smpo.run_recipe(recipe, ["pairs", "trian"])


def test_losses_are_pure_functions_of_tensors() -> None:
    margin = torch.tensor([0.0, 1e-3])
    certain = torch.ones(2)
    assert smpo.dpo_loss(margin, beta=2000.0).tolist() == pytest.approx([0.693147, 0.313262], abs=1e-5)
    assert torch.equal(smpo.smpo_loss(margin, certain, beta=2000.0, gamma=1.0), smpo.dpo_loss(margin, beta=2000.0))
    hints = {name: typing.get_type_hints(getattr(smpo, name)) for name in smpo.__all__ if name.endswith("_loss")}
    assert all(hint["return"] is torch.Tensor for hint in hints.values())
