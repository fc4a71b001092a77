"""Our preprocessing is bit-equal to transformers' CLIPImageProcessor, and refuses what it cannot reproduce."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from smpo.errors import DataError
from smpo.rewards.preprocessing import ShortestSide
from tests.data.pictures import picture
from tests.rewards.conftest import MEAN, STD

SIZES = [(224, 224), (512, 512), (300, 225), (225, 301), (832, 1216), (100, 60), (33, 224), (1, 7), (640, 427)]


def config(folder: Path, **changes) -> Path:
    settings = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "image_mean": MEAN,
                "image_std": STD, "resample": 3, **changes}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_bit_equal_to_transformers(tmp_path: Path, size: tuple[int, int]):
    image = picture(7, size)
    expected = CLIPImageProcessor()(images=[image], return_tensors="pt")["pixel_values"]
    assert torch.equal(ShortestSide.load(config(tmp_path))(image), expected[0])


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_other_modes_are_converted_first(tmp_path: Path, mode: str):
    image = picture(8, (300, 260)).convert(mode)
    expected = CLIPImageProcessor()(images=[image], return_tensors="pt")["pixel_values"]
    assert torch.equal(ShortestSide.load(config(tmp_path))(image), expected[0])


def test_crop_larger_than_the_image_is_black(tmp_path: Path):
    """Shortest side 20 and crop 24: transformers pads with zeros, too."""
    image = picture(9, (41, 30))
    folder = config(tmp_path, size={"shortest_edge": 20}, crop_size={"height": 24, "width": 24})
    processor = CLIPImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 24, "width": 24})
    expected = processor(images=[image], return_tensors="pt")["pixel_values"]
    assert torch.equal(ShortestSide.load(folder)(image), expected[0])


def test_a_white_pixel(tmp_path: Path):
    """White is (1 - mean) / std; for red (1 - 0.48145466) / 0.26862954 = 1.930336."""
    values = ShortestSide.load(config(tmp_path))(Image.fromarray(np.full((224, 224, 3), 255, np.uint8)))
    assert values[0].unique().tolist() == pytest.approx([1.930336], abs=1e-6)


def test_integer_sizes_of_old_configurations(tmp_path: Path):
    assert ShortestSide.load(config(tmp_path, size=224, crop_size=224)).crop_px == (224, 224)


def test_missing_configuration(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        ShortestSide.load(tmp_path)
    assert str(caught.value) == f"{tmp_path} has no preprocessor_config.json; set processor to a source with one"


@pytest.mark.parametrize(("changes", "asks"), [
    ({"size": {"height": 384, "width": 384}}, "size {'height': 384, 'width': 384} and skips nothing"),
    ({"do_center_crop": False}, "size {'shortest_edge': 224} and skips do_center_crop"),
])
def test_other_pipelines_are_refused(tmp_path: Path, changes: dict, asks: str):
    with pytest.raises(DataError) as caught:
        ShortestSide.load(config(tmp_path, **changes))
    assert str(caught.value) == (
        f"{tmp_path / 'preprocessor_config.json'} asks for {asks}; CLIP resizes the shortest_edge and skips nothing; "
        "use the processor of a CLIP model")
