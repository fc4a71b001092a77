"""Our preprocessing is bit-equal to transformers', torchvision's and hpsv2's, and refuses what it cannot reproduce."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from smpo.core.errors import ConfigError, DataError
from smpo.rewards.preprocessing import LongestSide, ShortestSide
from tests.data.pictures import picture
from tests.rewards.goldens import cases
from tests.rewards.published import MEAN, STD, golden_pixels

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


@pytest.mark.parametrize("size", cases.SIZES)
def test_shortest_side_is_torchvisions(size: tuple[int, int]):
    """OpenAI's, open_clip's and ImageReward's pipeline; an odd excess is cropped elsewhere than in transformers."""
    values = ShortestSide(library="torchvision")(cases.picture(size))
    assert torch.equal(cases.thinned(values), golden_pixels()[f"shortest-{size[0]}x{size[1]}"])


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", cases.SIZES)
def test_longest_side_is_hpsv2s(size: tuple[int, int], antialias: bool):
    """Bit-equal where the goldens were made; other processors may sum the four pixels in another order."""
    values, expected = LongestSide(antialias=antialias)(cases.picture(size)), golden_pixels()
    expected = expected[f"longest-{size[0]}x{size[1]}-{antialias}"]
    assert values.shape == (3, 224, 224)
    if max(size) == 224 != min(size):  # the original forgets to pad it: compare what is inside the padding
        top, left = (224 - size[1]) // 2, (224 - size[0]) // 2
        values = values[:, top : top + size[1], left : left + size[0]]
    assert torch.allclose(cases.thinned(values), expected, rtol=0, atol=2e-6)


def test_longest_side_by_hand():
    """A white 2:1 image: 56 rows of padding, black, above and below 112 rows of white; (0 - mean) / std for red."""
    values = LongestSide()(Image.new("RGB", (448, 224), "white"))
    white, black = (1 - MEAN[0]) / STD[0], -MEAN[0] / STD[0]
    assert values[0, :56].unique().tolist() == values[0, 168:].unique().tolist() == pytest.approx([black], abs=1e-6)
    assert values[0, 56:168].unique().tolist() == pytest.approx([white], abs=1e-6)


def test_odd_padding_has_the_larger_half_on_the_right_and_below():
    """223 px wide after resizing: nothing on the left, one column on the right."""
    values = LongestSide()(Image.new("RGB", (446, 448), "white"))
    black = pytest.approx(-MEAN[0] / STD[0], abs=1e-6)
    assert values[0, 0, -1] == black and values[0, 0, 0] != black


def test_longest_side_keeps_values_beyond_the_range():
    """Bicubic overshoot of a sharp edge is not clamped, as in the original."""
    edge = Image.new("RGB", (448, 448), "white")
    edge.paste((0, 0, 0), (0, 0, 224, 448))
    assert LongestSide()(edge)[0].max() > (1 - MEAN[0]) / STD[0] + 0.01


def test_the_two_kinds_of_resizing_differ_on_noise():
    image = cases.picture((512, 512))
    assert (LongestSide()(image) - LongestSide(antialias=True)(image)).abs().mean() > 0.1


def test_crop_offsets_of_the_two_libraries():
    """An excess of 3 px: torchvision rounds 1.5 to 2, transformers down to 1; an excess of 1: both give 0."""
    offsets = {library: [ShortestSide(library=library)._offset(excess) for excess in (1, 2, 3, 4, 5)]
               for library in ("torchvision", "transformers")}
    assert offsets == {"torchvision": [0, 1, 2, 2, 2], "transformers": [0, 1, 1, 2, 2]}


@pytest.mark.parametrize("preprocessing", [ShortestSide(), ShortestSide(library="torchvision"), LongestSide()])
def test_workers_can_have_it(preprocessing: ShortestSide | LongestSide):
    copy, image = pickle.loads(pickle.dumps(preprocessing)), cases.picture((50, 40))
    assert torch.equal(copy(image), preprocessing(image))
    assert json.loads(json.dumps(copy.describe())) == preprocessing.describe()


def test_descriptions_tell_pipelines_apart():
    kinds = [ShortestSide(), ShortestSide(library="torchvision"), LongestSide(), LongestSide(antialias=True)]
    assert len({json.dumps(kind.describe()) for kind in kinds}) == len(kinds)


def test_unknown_library():
    with pytest.raises(ConfigError, match="unknown preprocessing library 'torchvison'; .* Did you mean 'torchvision'"):
        ShortestSide(library="torchvison")
