"""The rules of `smpo.rewards.scorer.Scorer`, checked for every member of SCORERS on a reduced checkpoint of its own."""

import dataclasses
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smpo.core.errors import ConfigError
from smpo.rewards import SCORERS
from smpo.rewards.scorer import Scorer
from smpo.tiny.prompts import phrase, sample_scenes
from smpo.tiny.scenes import draw
from smpo.tiny.verifier import Verifier
from tests.rewards.parity import reduced_cases

DOCS = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text()
NUM = 3
PLACES = {"source", "revision", "processor", "clip", "tokenizer"}  # settings that say where files are


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scorer]:
    """One scorer of each name. A new member of SCORERS needs a reduced checkpoint here."""
    cases = reduced_cases(tmp_path_factory.mktemp("reduced"))
    return {name.partition(" ")[0]: case.scorer for name, case in cases.items()} | {"verifier": Verifier()}


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    rng = np.random.default_rng(1)
    return [phrase(scene, rng) for scene in sample_scenes(NUM, seed=2, split="train")]


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [draw(scene, number) for number, scene in enumerate(sample_scenes(NUM, seed=2, split="train"))]


def test_every_scorer_is_tested_here(scorers: dict[str, Scorer]) -> None:
    assert set(scorers) == set(SCORERS)


@pytest.mark.parametrize("name", SCORERS)
def test_name_units_and_bounds(name: str, scorers: dict[str, Scorer]) -> None:
    scorer = scorers[name]
    assert scorer.name == name and scorer.units and isinstance(scorer.higher_is_better, bool)
    assert scorer.bounds is None or scorer.bounds[0] < scorer.bounds[1]


@pytest.mark.parametrize("name", SCORERS)
def test_a_row_depends_on_its_own_image_and_prompt_alone(
    name: str, scorers: dict[str, Scorer], images: list[Image.Image], prompts: list[str]
) -> None:
    scorer = scorers[name]
    together = scorer(images, prompts)
    alone = torch.cat([scorer([image], [prompt]) for image, prompt in zip(images, prompts, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)
    torch.testing.assert_close(scorer(images[::-1], prompts[::-1]).flip(0), together, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", SCORERS)
def test_scores_are_finite_float32_on_the_cpu_and_within_bounds(
    name: str, scorers: dict[str, Scorer], images: list[Image.Image], prompts: list[str]
) -> None:
    scorer = scorers[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = scorer(images, prompts)
    assert torch.equal(scores, scorer(images, prompts)), "a caller's autocast moves the scores"
    assert scores.shape == (NUM,) and scores.dtype == torch.float32 and scores.device.type == "cpu"
    assert torch.isfinite(scores).all() and not scores.requires_grad
    low, high = scorer.bounds or (-np.inf, np.inf)
    assert low <= scores.min() and scores.max() <= high


@pytest.mark.parametrize("name", SCORERS)
def test_a_call_is_the_score_of_the_preprocessed_images(
    name: str, scorers: dict[str, Scorer], images: list[Image.Image], prompts: list[str]
) -> None:
    scorer = scorers[name]
    preprocessing = pickle.loads(pickle.dumps(scorer.preprocessing))  # worker processes get a copy
    inputs = torch.stack([preprocessing(image) for image in images])
    assert torch.equal(scorer.score(inputs, prompts), scorer(images, prompts))
    assert preprocessing.describe() == scorer.preprocessing.describe()


@pytest.mark.parametrize("name", SCORERS)
def test_the_identity_knows_contents_and_no_places(name: str, scorers: dict[str, Scorer], tmp_path: Path) -> None:
    scorer = scorers[name]
    identity = scorer.identity()
    assert identity["name"] == name and identity["units"] == scorer.units
    settings = {field.name: getattr(scorer, field.name) for field in dataclasses.fields(scorer)}
    moved = {key: _copied(value, tmp_path / key) for key, value in settings.items() if key in PLACES and value}
    assert dataclasses.replace(scorer, **moved).identity() == identity
    for value in settings.values():
        assert not (isinstance(value, str) and "/" in value and value in str(identity)), value


def _copied(place: str, folder: Path) -> str:
    """A copy of a file or folder elsewhere."""
    source = Path(place)
    folder.mkdir(exist_ok=True)
    copy = folder / source.name
    shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    return str(copy)


@pytest.mark.parametrize("name", SCORERS)
def test_settings_stand_in_a_light_class_and_bad_ones_are_refused_without_the_heavy_one(name: str) -> None:
    settings, implementation = SCORERS.settings_class(name), SCORERS.resolve(name)
    fields = [(field.name, field.default) for field in dataclasses.fields(settings)]
    own = [(field.name, field.default) for field in dataclasses.fields(implementation) if field.init]
    assert fields == own, "the class of a scorer adds no field to that of its settings"
    assert issubclass(implementation, settings) or not own
    with pytest.raises(ConfigError, match="scorer.sauce: unknown key"):
        SCORERS.checked({"name": name, "sauce": 1})
    for key, bad in (("dtype", "float8"), ("device", "gpu")):
        if key in dict(fields):
            with pytest.raises(ConfigError, match=f"scorer: .*scorer.{key}"):
                SCORERS.checked({"name": name, key: bad})
    text = "\n".join(base.__doc__ or "" for base in settings.__mro__)
    described = set(re.findall(r"^ {8}(\w+): ", text, re.MULTILINE))
    assert {key for key, _ in fields} <= described


@pytest.mark.parametrize("name", SCORERS)
def test_the_docs_describe_it(name: str) -> None:
    assert f"`{name}`" in DOCS or f"name: {name}" in DOCS
