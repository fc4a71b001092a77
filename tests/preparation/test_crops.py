"""The views of an image: where they are cut, how they are mirrored, what is remembered of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from smpo.preparation.crops import Crops, views_of


def ramp(width: int, height: int) -> Image.Image:
    """Red grows by one per column, green by one per row."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


def corner_of(pixels: torch.Tensor) -> tuple[int, int]:
    """Top and left of a crop of `ramp`, from its first pixel."""
    red, green, _ = ((pixels[:, 0, 0] + 1) * 127.5).round().int().tolist()
    return green, red


def test_pixels_are_scaled_to_minus_one_to_one() -> None:
    image = Image.new("RGB", (4, 4), (0, 255, 51))
    (view,) = views_of(image, Crops(4, flips=False), key="a")
    assert view.pixels.dtype == torch.float32 and view.pixels.shape == (3, 4, 4)
    assert view.pixels[:, 0, 0].tolist() == pytest.approx([-1.0, 1.0, -0.6])


@pytest.mark.parametrize(("width", "height", "corner"), [(40, 32, (0, 4)), (32, 46, (7, 0)), (32, 32, (0, 0))])
def test_center_crop_cuts_both_sides_alike(width: int, height: int, corner: tuple[int, int]) -> None:
    (view,) = views_of(ramp(width, height), Crops(32, flips=False), key="a")
    assert corner_of(view.pixels) == corner
    assert view.size == (height, width, *corner, 32, 32)


@pytest.mark.parametrize(("width", "height"), [(64, 80), (100, 33), (31, 31), (7, 200), (1, 1), (1023, 1024)])
def test_any_image_becomes_a_square_of_the_resolution(width: int, height: int) -> None:
    for crop in ("center", "random"):
        for view in views_of(Image.new("RGB", (width, height)), Crops(32, crop=crop, crops=2), key="a"):
            assert view.pixels.shape == (3, 32, 32)
            assert view.size[:2] == (height, width) and view.size[4:] == (32, 32)
            assert min(view.size[2:4]) >= 0


def test_the_shorter_side_is_resized_to_the_resolution() -> None:
    """80 x 64 becomes 40 x 32, of which columns 4 to 35 stay: the first shows columns 8 and 9 of the original."""
    (view,) = views_of(ramp(80, 64), Crops(32, flips=False), key="a")
    red = (view.pixels[0, 10] + 1) * 127.5
    assert red[0].item() == pytest.approx(8.5, abs=0.6) and red[-1].item() == pytest.approx(70.5, abs=0.6)


def test_every_crop_is_followed_by_its_mirror_image() -> None:
    views = views_of(ramp(48, 40), Crops(32, crop="random", crops=3), key="a")
    assert len(views) == Crops(32, crops=3).num_views == 6
    for view, mirrored in zip(views[::2], views[1::2], strict=True):
        assert torch.equal(mirrored.pixels, view.pixels.flip(-1))
        assert mirrored.size == view.size


def test_random_crops_are_a_function_of_the_image_alone() -> None:
    options = Crops(32, crop="random", crops=4, flips=False)
    first = [view.size for view in views_of(ramp(90, 70), options, key="pair/0")]
    torch.manual_seed(99)
    assert [view.size for view in views_of(ramp(90, 70), options, key="pair/0")] == first
    assert [view.size for view in views_of(ramp(90, 70), options, key="pair/1")] != first
    assert len({size[2:4] for size in first}) > 1
    more = Crops(32, crop="random", crops=6, flips=False)
    assert [view.size for view in views_of(ramp(90, 70), more, key="pair/0")][:4] == first


def test_random_crops_remember_where_they_were_cut() -> None:
    for view in views_of(ramp(50, 32), Crops(32, crop="random", crops=5, flips=False), key="a"):
        assert corner_of(view.pixels) == view.size[2:4]


def test_random_crops_reach_both_ends() -> None:
    options = Crops(32, crop="random", crops=1, flips=False)
    lefts = {views_of(ramp(35, 32), options, key=str(n))[0].size[3] for n in range(100)}
    assert lefts == {0, 1, 2, 3}
