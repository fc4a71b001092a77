"""Appearance, drift and diversity: known colours, hand-worked distances, and changes that only one measure sees."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy import stats

from smpo.core.errors import DataError, StaleError
from smpo.evaluation.appearance import MEASURES, Appearance, measure, measure_images, to_lab
from smpo.evaluation.image_sets import categories_of, compare_image_sets
from smpo.evaluation.indicators import between_distances, diversity, drifts, within_distances
from smpo.evaluation.statistics import holm_adjusted
from smpo.sampling.image_set import ImageSet
from tests.image_sets import Brightness


@pytest.mark.parametrize(("rgb", "lab"), [
    ((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20)),
    ((0, 128, 0), (46.23, -51.70, 49.90)), ((119, 119, 119), (50.03, 0, 0)),
])
def test_lab_of_known_colours(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    """Published CIELAB (D65) values of web colours."""
    np.testing.assert_allclose(to_lab(np.array(rgb, dtype=np.uint8)), lab, atol=0.02)


def test_missing_measures_name_the_verb_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `smpo evaluate` first"):
        Appearance.open(tmp_path / "appearance")


def photo(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(60, 190, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("change", "rises"), [
    (lambda i: ImageEnhance.Color(i).enhance(1.6), "saturation"),
    (lambda i: ImageEnhance.Brightness(i).enhance(1.15), "brightness"),
    (lambda i: ImageEnhance.Contrast(i).enhance(1.5), "contrast"),
    (lambda i: i.filter(ImageFilter.UnsharpMask(2, 200, 0)), "sharpness"),
])
def test_each_measure_sees_its_own_change(change, rises: str) -> None:
    for seed in range(5):
        before, after = (dict(zip(MEASURES, measure(i)[0], strict=True)) for i in (photo(seed), change(photo(seed))))
        assert after[rises] > 1.05 * before[rises]
    flat = dict(zip(MEASURES, measure(Image.new("RGB", (20, 30), (119, 119, 119)))[0], strict=True))
    assert flat == pytest.approx({"brightness": 50.03, "contrast": 0, "saturation": 0, "sharpness": 0}, abs=0.02)


def look(thumbnails: np.ndarray, per_prompt: int, **measures: np.ndarray) -> Appearance:
    return Appearance(measures, thumbnails.astype(np.float32), per_prompt, "f")


def test_distances_by_hand() -> None:
    """Flat thumbnails at L* = 0, 30; 10, 10; 0, 90, and no colour: the root mean square difference is that of L*."""
    flat = np.zeros((6, 256, 3))
    flat[:, :, 0] = np.array([0, 30, 10, 10, 0, 90])[:, None]
    shown = look(flat.reshape(6, -1), 2)
    assert within_distances(shown).tolist() == pytest.approx([30, 0, 90])
    np.testing.assert_allclose(between_distances(shown), [[0, 10, 0], [10, 0, 10], [0, 10, 0]])
    result, = diversity({"base": shown}, "base")
    assert result.within.value == pytest.approx(40) and result.spread.value == pytest.approx(20 / 3)
    assert result.within_change is result.spread_change is None
    assert within_distances(look(flat.reshape(6, -1), 1)) is None


def test_less_diverse_images_are_told() -> None:
    """Half the scatter within and between prompts: both fall to a half, and the intervals exclude no change."""
    rng = np.random.default_rng(0)
    prompts, images = rng.normal(size=(60, 1, 768)), rng.normal(size=(60, 3, 768))
    wide, narrow = (look((s * (2 * prompts + images)).reshape(180, 768), 3) for s in (1.0, 0.5))
    base, other = diversity({"narrow": narrow, "base": wide}, "base")
    assert (base.model, other.model) == ("base", "narrow")
    assert other.within.value == pytest.approx(base.within.value / 2, rel=1e-5)
    assert other.spread.value == pytest.approx(base.spread.value / 2, rel=1e-5)
    assert other.within_change.high < 0 and other.spread_change.high < 0
    assert base.spread.low < base.spread.value < base.spread.high
    same = diversity({"base": wide, "twin": wide}, "base")[1]
    assert (same.within_change.low, same.spread_change.low, same.spread_change.high) == (0, 0, 0)


def test_interval_of_the_spread_covers() -> None:
    """Mean |x - y| of two standard normals is 2 / sqrt(pi); 150 samples of 40 prompts, nominal 95 %."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(150):
        thumbnails = np.repeat(rng.normal(size=(40, 1)), 256, axis=1)
        shown, = diversity({"base": look(thumbnails, 1)}, "base")
        covered.append(shown.spread.low <= 2 / np.sqrt(np.pi) <= shown.spread.high)
    assert 0.89 <= np.mean(covered) <= 0.98


def test_drift_by_hand() -> None:
    """Saturation 1 ... 20 against itself plus one: a shift of 1 / standard deviation, certain in the rank test."""
    base = np.arange(1, 21.0)
    looks = {"base": look(np.zeros((20, 3)), 1, saturation=base, contrast=base),
             "lighter": look(np.zeros((20, 3)), 1, saturation=base + 1, contrast=base)}
    saturation, contrast = drifts(looks, "base")
    assert (saturation.model, saturation.measure, saturation.mean, saturation.baseline_mean) == (
        "lighter", "saturation", 11.5, 10.5
    )
    assert saturation.shift.value == saturation.shift.low == pytest.approx(1 / base.std())
    expected = holm_adjusted([stats.wilcoxon(np.ones(20)).pvalue, 1.0])
    assert [saturation.p_holm, contrast.p_holm] == pytest.approx(expected) and contrast.shift.value == 0


def test_measures_are_stored_and_bound_to_the_images(sets: dict[str, ImageSet], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = measure_images(sets["base"], tmp_path / "a", progress=lambda *call: calls.append(call))
    assert calls == [(32, 40), (40, 40)] and first.thumbnails.shape == (40, 768)
    expected = [measure(image) for image in sets["base"].images()]
    np.testing.assert_array_equal(first.measures["contrast"], [numbers[1] for numbers, _ in expected])
    np.testing.assert_array_equal(first.thumbnails, np.stack([thumbnail for _, thumbnail in expected]))
    measure_images(sets["base"], tmp_path / "a", progress=lambda *call: calls.append(call))
    assert len(calls) == 2
    with pytest.raises(StaleError, match=r"input\.images="):
        measure_images(sets["lighter"], tmp_path / "a")


def test_the_whole_evaluation_is_one_call(sets: dict[str, ImageSet], tmp_path: Path) -> None:
    scorers, names = {"brightness": Brightness()}, {"baseline": "base", "training_reward": "brightness"}
    comparison = compare_image_sets(sets, scorers, tmp_path, **names)
    assert comparison.models == ("base", "twin", "lighter") and comparison.categories == comparison.implicit == ()
    assert {(d.model, d.measure) for d in comparison.drifts} == {(m, k) for m in ("twin", "lighter") for k in MEASURES}
    brighter = next(d for d in comparison.drifts if (d.model, d.measure) == ("lighter", "brightness"))
    assert brighter.shift.low > 0 and brighter.p_holm < 0.05
    assert [d.model for d in comparison.diversity] == ["base", "twin", "lighter"]
    assert compare_image_sets(sets, scorers, tmp_path, **names).to_json() == comparison.to_json()


def test_categories_are_all_or_none(sets: dict[str, ImageSet]) -> None:
    images = sets["base"]
    assert categories_of(images) == ()
    assert categories_of(dataclasses.replace(images, categories=("Arts",) * 40)) == ("Arts",) * 40
    with pytest.raises(DataError, match="image 39 has no category, others have; give all prompts one, or none"):
        categories_of(dataclasses.replace(images, categories=(*("Arts",) * 39, None)))
