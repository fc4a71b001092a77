"""The shipped weights: they load with plain diffusers and transformers, stay small, and follow their prompts."""

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from examples.tiny_world.clip_models import clip_scores
from examples.tiny_world.corpus import from_pil
from examples.tiny_world.measure import generate, pair_agreement
from smpo.tiny.folders import WEIGHTS, weights_folder
from smpo.tiny.prompts import parse, sample_prompts
from smpo.tiny.scenes import draw
from smpo.tiny.verifier import Verifier

PIPELINES = {"tiny-sd": StableDiffusionPipeline, "tiny-sdxl": StableDiffusionXLPipeline}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Many threads are slower than one on models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(name: str) -> DiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(weights_folder(name))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_all_weights_together_are_at_most_25_megabytes():
    root = weights_folder("tiny-sd").parent
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) <= 25e6


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_folder_has_its_card_and_log(name):
    assert {"README.md", "training_log.jsonl"} <= {path.name for path in weights_folder(name).iterdir()}


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="tiny model must be one of"):
        weights_folder("tiny-flux")


@pytest.mark.parametrize("name", list(PIPELINES))
def test_samples_follow_their_own_prompts(name):
    pipeline = load(name)
    assert type(pipeline) is PIPELINES[name]
    assert {part.dtype for part in pipeline.components.values() if hasattr(part, "dtype")} == {torch.float32}
    prompts = sample_prompts(16, seed=4, split="heldout")
    images = generate(pipeline, prompts, guidance_scale=3.0, num_steps=12, seed=0)
    assert {image.size for image in images} == {(64, 64)}
    own = Verifier()(images, prompts).mean()
    shuffled = Verifier()(images, prompts[1:] + prompts[:1]).mean()
    assert own > shuffled + 0.15, (own, shuffled)


@pytest.mark.parametrize("name", ["tiny-reward", "tiny-clip"])
def test_clip_prefers_the_right_image(name):
    folder = weights_folder(name)
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    prompts = sample_prompts(64, seed=6, split="heldout")
    images = from_pil([draw(parse(prompt), i) for i, prompt in enumerate(prompts)])
    own = clip_scores(model, tokenizer, images, prompts)
    other = clip_scores(model, tokenizer, images.roll(1, dims=0), prompts)
    assert (own > other).float().mean() >= 0.9


def test_the_processor_prepares_64_px_images_as_in_training():
    processor = CLIPImageProcessor.from_pretrained(weights_folder("tiny-reward"))
    pixel_values = processor(Image.new("RGB", (128, 96), (255, 255, 255)), return_tensors="pt").pixel_values
    assert pixel_values.shape == (1, 3, 64, 64)
    assert torch.allclose(pixel_values[0, :, 0, 0], torch.tensor([1.9303, 2.0749, 2.1459]), atol=1e-3)


def test_pair_agreement_by_hand():
    """Three pairs differ in truth; the scores order two of them as the truth does: 2 / 3."""
    truth = torch.tensor([[1.0, 0.2], [0.4, 0.8], [0.6, 0.4], [0.6, 0.6]])
    scores = torch.tensor([[3.0, 1.0], [2.0, 5.0], [0.0, 1.0], [9.0, 0.0]])
    agreement, num_pairs = pair_agreement(truth, scores)
    assert (round(agreement, 4), num_pairs) == (0.6667, 3)
