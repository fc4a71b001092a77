"""Numbers and sentences of a report."""

from pathlib import Path

from smpo.evaluation.compare import Comparison, compare
from smpo.evaluation.scores import evaluate_images
from smpo.evaluation.statistics import Interval
from smpo.report.wording import decimals, headline, interval_text, joined, shortened
from tests.image_sets import Brightness, make_image_set


def test_headline_says_what_fell_and_what_is_open(comparison: Comparison) -> None:
    texts = {finding.tone: finding.text for finding in headline(comparison, "lighter")}
    shown = comparison.pairing("lighter", "brightness").win_rate
    assert texts["lead"] == (
        f"lighter beats base on {100 * shown.rate:.1f} % of 40 images under brightness, the reward it was trained on "
        f"(95 % interval {100 * shown.low:.1f} to {100 * shown.high:.1f} %): a significant improvement."
    )
    assert texts["worse"].startswith("Worse than base under 1 of 3 scorers: darkness (wins ")
    assert texts["warning"] == "Sign of over-optimisation: brightness rises while darkness falls."
    twin = {finding.tone: finding.text for finding in headline(comparison, "twin")}
    assert twin["lead"].endswith("(95 % interval 35.2 to 64.8 %): too close to call.")
    assert "brightness (wins 50.0 %: 0.0 % won, 0.0 % lost, 100.0 % tied)" in twin["undecided"]
    assert twin["warning"] == "The training reward brightness did not rise."


def test_headline_names_an_interval_that_includes_half(tmp_path: Path) -> None:
    for name, light in (("a", 100), ("b", 101)):
        images = make_image_set(tmp_path / name, light=light)
        scorers = {"brightness": Brightness(), "darkness": Brightness("darkness", -1.0)}
        evaluate_images(images, scorers, tmp_path / f"e-{name}")
    open_text = headline(compare({n: tmp_path / f"e-{n}" for n in "ab"}, "a"), "b")[1]
    assert open_text.tone == "undecided"
    assert open_text.text.count("interval includes 50 %") == 2


def test_wording_of_numbers() -> None:
    """The narrowest interval is 0.013 wide: two of its figures need 3 digits."""
    assert decimals([Interval(0.2, 0.2, 0.213), Interval(5, 4, 6)]) == 3
    assert decimals([Interval(200, 150, 260)]) == 0 and decimals([Interval(1, 1, 1)]) == 3
    assert interval_text(Interval(1, 0.25, 2), 1) == "[0.2, 2.0]"
    assert (joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])) == ("a", "a and b", "a, b and c")
    assert shortened("a long prompt", 9) == "a long..." and shortened("short", 9) == "short"
