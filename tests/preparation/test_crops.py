"""The views of an image: where they are cut, how they are mirrored, what is remembered of them."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from smpo.preparation.crops import resized_size, views_of
from smpo.preparation.options import Crops


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


@pytest.mark.parametrize(("width", "height", "corner"), [
    (40, 32, (0, 4)), (32, 46, (7, 0)), (32, 32, (0, 0)), (33, 32, (0, 0)), (35, 32, (0, 2)), (37, 32, (0, 2)),
])
def test_center_crop_cuts_both_sides_alike(width: int, height: int, corner: tuple[int, int]) -> None:
    """Of an odd rest as torchvision does, round(rest / 2), halves to even: 1 -> 0, 3 -> 2, 5 -> 2."""
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
        left = 38 - 32 - view.size[3]  # 48 x 40 becomes int(32 48 / 40) = 38 x 32
        assert mirrored.size == (*view.size[:3], left, *view.size[4:])


def test_a_mirrored_crop_says_where_it_lies_in_the_mirrored_image() -> None:
    """Columns 3 to 34 of 50 are, mirrored, columns 50 - 32 - 3 = 15 to 46: there the crop is found again.

    diffusers' SDXL scripts mirror the resized image first, then crop, and remember that crop's place.
    """
    picture = ramp(50, 32)
    for number in range(20):
        view, mirrored = views_of(picture, Crops(32, crop="random"), key=str(number))
        top, left = mirrored.size[2:4]
        assert left == 50 - 32 - view.size[3]
        again = ImageOps.mirror(picture).crop((left, top, left + 32, top + 32))
        pixels = torch.from_numpy(np.array(again, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
        assert torch.equal(pixels, mirrored.pixels)


@pytest.mark.parametrize(("size", "side", "expected"), [
    ((48, 40), 32, (38, 32)), ((640, 427), 512, (767, 512)), ((427, 640), 512, (512, 767)),
    ((1023, 1024), 32, (32, 32)), ((32, 32), 32, (32, 32)), ((1, 1), 8, (8, 8)), ((3, 10), 7, (7, 23)),
    ((3, 5), 7, (7, 11)),
])
def test_the_resized_size_is_torchvisions(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    """int(side longer / shorter): 32 48 / 40 = 38.4, 512 640 / 427 = 767.4; 7 5 / 3 = 11.67 would be rounded to 12."""
    assert resized_size(size, side) == expected


def test_rounding_would_have_given_a_pixel_more_for_nearly_half_of_all_sizes() -> None:
    """Over widths and heights 300 to 1,000 at 512 px: what this change moves, docs/equations.md."""
    sizes = [(width, height) for width in range(300, 1001, 7) for height in range(300, 1001, 7)]
    rounded = [tuple(round(512 * length / min(size)) for length in size) for size in sizes]
    longer = sum(one != resized_size(size, 512) for one, size in zip(rounded, sizes, strict=True))
    assert 0.40 < longer / len(sizes) < 0.55

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
