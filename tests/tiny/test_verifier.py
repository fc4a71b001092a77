"""The verifier against renders whose attributes are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from smpo.tiny.prompts import phrase, sample_scenes
from smpo.tiny.scenes import Scene, SceneObject, attributes, draw
from smpo.tiny.verifier import Verifier, attribute_accuracy, read, verify

HOUSE = SceneObject("house", "red", "left", "small")
SCENE = Scene((HOUSE,), "blue")
PAIR = Scene((SceneObject("fish", "red", "left"), SceneObject("star", "green", "right")), "black")


def test_clean_renders_are_read_right():
    rng = np.random.default_rng(11)
    verdicts = [verify(draw(scene, rng), scene) for scene in sample_scenes(300, seed=9, split="train")]
    accuracy = attribute_accuracy(verdicts)
    assert set(accuracy) == {"object", "colour", "position", "size", "background"}
    assert min(accuracy.values()) >= 0.99, accuracy


def test_blurred_renders_are_read_right():
    scenes = sample_scenes(100, seed=12, split="train")
    images = [draw(scene, i).filter(ImageFilter.GaussianBlur(0.7)) for i, scene in enumerate(scenes)]
    accuracy = attribute_accuracy([verify(image, scene) for image, scene in zip(images, scenes, strict=True)])
    assert min(accuracy.values()) >= 0.95, accuracy


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("object", Scene((replace(HOUSE, kind="cat"),), "blue")),
        ("colour", Scene((replace(HOUSE, colour="orange"),), "blue")),
        ("position", Scene((replace(HOUSE, position="top"),), "blue")),
        ("size", Scene((replace(HOUSE, size="large"),), "blue")),
        ("background", Scene((HOUSE,), "pink")),
    ],
)
def test_a_changed_attribute_and_no_other_is_denied(name, changed):
    for seed in range(5):
        verdict = verify(draw(changed, seed), SCENE)
        assert verdict == {attribute: attribute != name for attribute in attributes(SCENE)}


def test_swapped_colours_of_a_pair_are_denied():
    swapped = Scene((replace(PAIR.objects[0], colour="green"), replace(PAIR.objects[1], colour="red")), "black")
    verdict = verify(draw(swapped, 0), PAIR)
    assert [name for name, is_right in verdict.items() if not is_right] == ["colour 1", "colour 2"]


def test_a_missing_second_object_has_none_of_its_attributes():
    lone = draw(Scene((SceneObject("fish", "red", "left", "small"),), "black"), 0)
    fulfilled = [name for name, is_right in verify(lone, PAIR).items() if is_right]
    assert fulfilled == ["colour 1", "position 1", "background"]


def test_an_unwanted_second_object_costs_the_object():
    for thing in PAIR.objects:
        scene = Scene((replace(thing, size="small"),), "black")
        assert not verify(draw(PAIR, 0), scene)["object"]


def test_an_empty_image_has_only_its_background():
    blank = Image.new("RGB", (64, 64), (168, 208, 244))
    assert read(blank).objects == ()
    assert [name for name, is_right in verify(blank, SCENE).items() if is_right] == ["background"]


def test_noise_is_no_object_and_no_named_background():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert not any(verify(Image.fromarray(noise), SCENE)[name] for name in ("object", "colour", "background"))


def test_images_of_another_size_are_scaled():
    assert all(verify(draw(SCENE, 1).resize((256, 256), Image.Resampling.BICUBIC), SCENE).values())


def test_scores_are_fractions_in_one_float32_tensor():
    rng = np.random.default_rng(0)
    prompts = [phrase(SCENE, rng), phrase(PAIR, rng)]
    verifier = Verifier()
    scores = verifier([draw(SCENE, 0), draw(SCENE, 0)], prompts)
    assert scores.dtype == torch.float32
    assert scores.shape == (2,)
    assert scores[0] == 1.0
    assert verifier.bounds[0] <= scores[1] < 0.6
    assert (verifier.name, verifier.units) == ("verifier", "fraction of the prompt's attributes")


def test_preprocessed_pixels_give_the_same_scores_as_images():
    rng = np.random.default_rng(0)
    images = [draw(SCENE, 0), draw(PAIR, 1).resize((96, 96), Image.Resampling.BICUBIC)]
    prompts = [phrase(SCENE, rng), phrase(PAIR, rng)]
    inputs = torch.stack([Verifier().preprocessing(image) for image in images])
    assert (inputs.shape, inputs.dtype) == ((2, 64, 64, 3), torch.uint8)
    assert torch.equal(Verifier().score(inputs, prompts), Verifier()(images, prompts))


def test_a_wrong_count_and_a_foreign_prompt_are_refused():
    with pytest.raises(ValueError, match="one prompt per image, got 1 images and 0 prompts"):
        Verifier()([draw(SCENE, 0)], [])
    with pytest.raises(ValueError, match="grammar"):
        Verifier()([draw(SCENE, 0)], ["a photo of a dog"])
