"""Comparison: pairing, adjusted verdicts, attributes, and the sign of over-optimisation."""

import json
from pathlib import Path

import numpy as np
import pytest

from smpo.core.errors import ConfigError, DataError
from smpo.evaluation.compare import Comparison, OverOptimisation, compare
from smpo.evaluation.scores import ImageScores, evaluate_images
from smpo.evaluation.statistics import holm_adjusted, win_rate
from smpo.sampling.image_set import ImageSet
from tests.image_sets import Brightness, make_image_set


@pytest.fixture(scope="module")
def comparison(evaluations: dict[str, Path]) -> Comparison:
    return compare(evaluations, "base", training_reward="brightness")


def test_summaries_are_those_of_the_columns(comparison: Comparison, evaluations: dict[str, Path]) -> None:
    scores = ImageScores.open(evaluations["lighter"]).scores["brightness"]
    shown = comparison.summaries["lighter"]["brightness"]
    assert shown.n == comparison.num_prompts == 40
    assert shown.median.value == pytest.approx(np.median(scores)) and shown.mean.value == pytest.approx(scores.mean())
    assert shown.median.low < shown.median.value < shown.median.high


def test_every_ordered_pair_is_there_and_paired_by_row(
    comparison: Comparison, evaluations: dict[str, Path]
) -> None:
    assert len(comparison.pairings) == 3 * 2 * 3
    tables = {name: ImageScores.open(folder) for name, folder in evaluations.items()}
    for p in comparison.pairings:
        assert p.win_rate == win_rate(tables[p.model].scores[p.scorer], tables[p.other].scores[p.scorer])
        effects = (p.p_holm, p.median_difference, p.mean_difference, p.shift, p.p_signed_rank, p.cliffs_delta)
        assert {value is None for value in effects} == {p.other != "base"}


def test_identical_sets_tie_everywhere(comparison: Comparison) -> None:
    for scorer in comparison.units:
        p = comparison.pairing("twin", scorer)
        assert (p.win_rate.ties, p.win_rate.rate, p.p_holm, p.verdict) == (40, 0.5, 1.0, "undecided")
        assert (p.median_difference.value, p.shift.value) == (0.0, 0.0)


def test_verdicts_are_holm_adjusted_over_sets_and_scorers(comparison: Comparison) -> None:
    against = [p for p in comparison.pairings if p.other == "base"]
    assert [p.p_holm for p in against] == holm_adjusted([p.win_rate.p_value for p in against])
    assert comparison.pairing("lighter", "brightness").verdict == "better"
    assert comparison.pairing("lighter", "darkness").verdict == "worse"
    assert comparison.pairing("lighter", "brightness", "twin").verdict == "undecided"  # not against the baseline


def test_shift_is_in_standard_deviations_of_the_baseline(
    comparison: Comparison, evaluations: dict[str, Path]
) -> None:
    lighter, base = (ImageScores.open(evaluations[name]).scores["brightness"] for name in ("lighter", "base"))
    expected = (lighter.mean() - base.mean()) / base.std()
    assert comparison.pairing("lighter", "brightness").shift.value == pytest.approx(expected, rel=1e-4)


def test_over_optimisation_is_flagged_only_where_another_scorer_falls(
    comparison: Comparison, evaluations: dict[str, Path]
) -> None:
    twin, lighter = comparison.over_optimisation
    assert (lighter.model, lighter.rises, lighter.falling, lighter.flagged) == ("lighter", True, ("darkness",), True)
    assert (twin.model, twin.rises, twin.falling, twin.flagged) == ("twin", False, (), False)
    fallen = compare(evaluations, "base", training_reward="darkness").over_optimisation[1]
    assert (fallen.rises, fallen.falling, fallen.flagged) == (False, (), False)
    assert compare(evaluations, "base").over_optimisation == ()
    assert not OverOptimisation("all fell", "brightness", rises=False, falling=("darkness",)).flagged


def test_attributes_count_only_images_that_have_them(comparison: Comparison, sets: dict[str, ImageSet]) -> None:
    changes = {(c.model, c.attribute): c for c in comparison.attributes}
    light = [np.asarray(image).mean() > 100 for image in sets["lighter"].images()]
    assert changes["lighter", "light"].n == 40 and changes["lighter", "square"].n == 8
    assert changes["lighter", "light"].accuracy.value == np.mean(light)
    assert changes["lighter", "square"].accuracy.value == 1.0
    assert changes["base", "light"].p_holm is None and changes["lighter", "light"].p_holm < 0.05
    assert changes["twin", "light"].p_holm == 1.0


def test_json_holds_everything_and_is_deterministic(comparison: Comparison, evaluations: dict[str, Path]) -> None:
    content = json.loads(comparison.to_json())
    assert content["baseline"] == "base" and content["models"] == ["base", "twin", "lighter"]
    assert {p["verdict"] for p in content["pairings"]} == {"better", "worse", "undecided"}
    assert [entry["flagged"] for entry in content["over_optimisation"]] == [False, True]
    assert comparison.to_json() == compare(evaluations, "base", training_reward="brightness").to_json()


@pytest.mark.parametrize(("change", "message"), [
    ({"seed": 5}, "'odd' and 'base' differ in seeds, first at image 0: 5 and 0; "
     "generate both with the same prompts and seed"),
    ({"prompts": ["a"] * 40}, "'odd' and 'base' differ in prompts, first at image 0: 'a' and 'a red disc, number 0'; "
     "generate both with the same prompts and seed"),
    ({"prompts": ["a"] * 3}, "'odd' has 3 images and 'base' 40; generate both from the same prompts"),
    ({}, "'odd' was scored by darkness and 'base' by brightness, darkness, verifier; "
     "evaluate both with the same scorers"),
])
def test_sets_that_cannot_be_paired_are_refused(
    evaluations: dict[str, Path], tmp_path: Path, change: dict, message: str
) -> None:
    odd = make_image_set(tmp_path / "odd", light=90, **change)
    evaluate_images(odd, {"darkness": Brightness("darkness", -1.0)}, tmp_path / "scores")
    with pytest.raises(DataError) as refused:
        compare({"base": evaluations["base"], "odd": tmp_path / "scores"}, "base")
    assert str(refused.value) == message


def test_unknown_names_are_refused(evaluations: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="unknown baseline 'bse'; known: base, twin, lighter. Did you mean 'base'?"):
        compare(evaluations, "bse")
    with pytest.raises(ConfigError, match="unknown training reward 'pickscore'"):
        compare(evaluations, "base", training_reward="pickscore")


def test_several_images_of_a_prompt_are_one_unit(tmp_path: Path) -> None:
    for name, light in (("a", 90), ("b", 110)):
        images = make_image_set(tmp_path / name, light=light, per_prompt=4)
        evaluate_images(images, {"brightness": Brightness()}, tmp_path / f"e-{name}")
    styles = ["Arts"] * 12 + ["Food"] * 148
    comparison = compare({name: tmp_path / f"e-{name}" for name in "ab"}, "a", categories=styles)
    assert [(r.category, r.prompts, r.win_rate.n) for r in comparison.categories] == [
        ("Arts", 3, 12), ("Food", 37, 148)
    ]
    assert (comparison.num_prompts, comparison.images_per_prompt) == (40, 4)
    shown = comparison.pairing("b", "brightness").win_rate
    assert shown.n == 160 and shown.prompts_won + shown.prompts_lost <= 40


def test_median_image_stands_for_its_prompt(tmp_path: Path) -> None:
    """Diffusion-KTO's protocol: of three images a prompt, the middle one under each scorer is compared."""
    for name, light in (("a", 90), ("b", 110)):
        images = make_image_set(tmp_path / name, light=light, per_prompt=3)
        evaluate_images(images, {"brightness": Brightness()}, tmp_path / f"e-{name}")
    folders = {name: tmp_path / f"e-{name}" for name in "ab"}
    comparison = compare(folders, "a", protocol="median-image")
    middle = {n: np.median(ImageScores.open(folder).rows("brightness"), axis=1) for n, folder in folders.items()}
    assert (comparison.protocol, comparison.summaries["a"]["brightness"].n) == ("median-image", 40)
    assert comparison.pairing("b", "brightness").win_rate == win_rate(middle["b"], middle["a"])
    with pytest.raises(ConfigError, match="unknown protocol 'median'; known: all, median-image."):
        compare(folders, "a", protocol="median")


def test_categories_are_compared_apart(evaluations: dict[str, Path]) -> None:
    categories = ["Animals" if i % 4 == 0 else "Vehicles" for i in range(40)]
    results = compare(evaluations, "base", categories=categories).categories
    assert [(r.category, r.model, r.scorer) for r in results] == [
        (c, m, s) for c in ("Animals", "Vehicles") for m in ("twin", "lighter")
        for s in ("brightness", "darkness", "verifier")
    ]
    assert {(r.category, r.prompts) for r in results} == {("Animals", 10), ("Vehicles", 30)}
    tables = {name: ImageScores.open(folder) for name, folder in evaluations.items()}
    lighter, base = (tables[name].scores["brightness"][::4] for name in ("lighter", "base"))
    animals = next(r for r in results if (r.category, r.model, r.scorer) == ("Animals", "lighter", "brightness"))
    assert animals.win_rate == win_rate(lighter, base)
    assert (animals.median, animals.baseline_median) == pytest.approx((np.median(lighter), np.median(base)))
    assert animals.mean_difference.value == pytest.approx(lighter.mean() - base.mean(), rel=1e-4)
    assert [r.p_holm for r in results] == holm_adjusted([r.win_rate.p_value for r in results])
    with pytest.raises(DataError, match="got 3 categories for 40 images; give each image one"):
        compare(evaluations, "base", categories=["a"] * 3)
