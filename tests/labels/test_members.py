"""Numbers worked by hand, and exact messages, of each label. What holds for all of them: test_contract.py."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from smpo.core.errors import ConfigError
from smpo.labels import LABELS
from smpo.labels.bradley_terry import BradleyTerry
from smpo.labels.ensemble import Ensemble
from smpo.labels.hard import Hard
from smpo.labels.judgements import Judgements
from smpo.labels.label import Label
from smpo.labels.majority import Majority
from smpo.labels.smoothed import Smoothed
from smpo.labels.votes import Votes
from smpo.pipeline.config import resolve
from smpo.pipeline.recipe_files import recipe_path
from tests.maths.references import doubles, sigmoid

PAGE = Path(__file__).parents[2] / "docs" / "labels.md"
SCORE_0 = doubles(0.20, 0.25, 0.22)
SCORE_1 = doubles(0.24, 0.21, 0.22)
HUMAN = doubles(1.0, 1.0, 0.0)  # label_0: people preferred images 0, 0, 1
SHARES = doubles(0.25, 0.6, 0.0)  # of the votes that image 0 got
NOBODY = torch.full((3,), float("nan"), dtype=torch.float64)


def judged(score_0: Tensor = SCORE_0, score_1: Tensor = SCORE_1, human: Tensor = HUMAN, shares: Tensor = SHARES
           ) -> Judgements:
    """One score table (B,), or several (M, B)."""
    return Judgements(torch.atleast_2d(score_0), torch.atleast_2d(score_1), human, shares)


THREE = judged(  # three scorers; units and ranges differ by orders of magnitude
    doubles(0.20, 0.25, 0.30, 5.0, 1.0, 2.0, -10.0, 30.0, 7.0).view(3, 3),
    doubles(0.24, 0.21, 0.20, 4.0, 3.0, 2.0, 10.0, 10.0, 7.0).view(3, 3),
)


def test_hard_labels_follow_people_and_weigh_fully() -> None:
    winner, p = Hard()(judged())
    assert winner.tolist() == [0, 0, 1] and winner.dtype == torch.int64
    assert p.tolist() == [1, 1, 1] and p.dtype == torch.float32


def test_hard_labels_follow_the_reward_or_the_majority_where_asked() -> None:
    winner, p = Hard(winner_by="reward")(judged(human=NOBODY, shares=NOBODY).rows(torch.tensor([0, 1])))
    assert winner.tolist() == [1, 0] and p.tolist() == [1, 1]
    winner, p = Hard(winner_by="votes")(judged(human=NOBODY))
    assert winner.tolist() == [1, 0, 1] and p.tolist() == [1, 1, 1]


def test_votes_are_the_label() -> None:
    """0.25 of the votes for image 0 are 0.75 for image 1."""
    winner, p = Votes()(judged(human=NOBODY))
    assert winner.tolist() == [1, 0, 1] and winner.dtype == torch.int64
    assert p.tolist() == pytest.approx([0.75, 0.6, 1.0]) and p.dtype == torch.float32


def test_smoothed_labels_over_the_measured_range() -> None:
    """Range 0.20 to 0.25; winners 1, 0, 0 (tie); gaps 0.04, 0.04, 0 over 0.05: sigmoid(0.8), sigmoid(0.8), 1/2."""
    label = Smoothed()
    winner, p = label(judged())
    assert label.score_ranges(judged()) == (pytest.approx((0.20, 0.25)),)
    assert winner.tolist() == [1, 0, 0] and winner.dtype == torch.int64
    assert p.tolist() == pytest.approx([sigmoid(0.8), sigmoid(0.8), 0.5], abs=1e-6) and p.dtype == torch.float32


def test_smoothed_labels_over_a_given_range() -> None:
    """The same gaps over 0.2."""
    label = Smoothed(score_range=(0.1, 0.3))
    assert label.score_ranges(judged()) == ((0.1, 0.3),)
    assert label(judged())[1].tolist() == pytest.approx([sigmoid(0.2), sigmoid(0.2), 0.5], abs=1e-6)


def test_a_linear_link_is_proportional_to_the_gap() -> None:
    """1/2 + 0.04 / (4 * 0.05) = 0.7; by people's winners the first pair falls to 0.3."""
    assert Smoothed(link="linear")(judged())[1].tolist() == pytest.approx([0.7, 0.7, 0.5])
    assert Smoothed(link="linear", winner_by="human")(judged())[1].tolist() == pytest.approx([0.3, 0.7, 0.5])


def test_probability_falls_below_one_half_where_people_disagree_with_the_reward() -> None:
    """Pair 0: people chose image 0, whose score is 0.04 lower: sigmoid(-0.8); pair 1 agrees. Votes chose 1, 0, 1."""
    winner, p = Smoothed(winner_by="human")(judged())
    assert winner.tolist() == [0, 0, 1]
    assert p.tolist() == pytest.approx([sigmoid(-0.8), sigmoid(0.8), 0.5], abs=1e-6)
    winner, p = Smoothed(winner_by="votes")(judged(human=NOBODY))
    assert winner.tolist() == [1, 0, 1]
    assert p.tolist() == pytest.approx([sigmoid(0.8), sigmoid(0.8), 0.5], abs=1e-6)


def test_bradley_terry_labels_over_a_scale() -> None:
    """Gaps 0.04 over PickScore's 0.01: sigmoid(4); with people's winner the first is sigmoid(-4)."""
    winner, p = BradleyTerry(scale=0.01)(judged())
    assert winner.tolist() == [1, 0, 0] and p.dtype == torch.float32
    assert p.tolist() == pytest.approx([sigmoid(4), sigmoid(4), 0.5], abs=1e-6)
    winner, p = BradleyTerry(scale=0.01, winner_by="human")(judged())
    assert winner.tolist() == [0, 0, 1]
    assert p.tolist() == pytest.approx([sigmoid(-4), sigmoid(4), 0.5], abs=1e-6)


def test_a_scale_that_is_the_range_gives_the_smoothed_label() -> None:
    assert torch.equal(BradleyTerry(scale=0.25 - 0.20)(judged())[1], Smoothed()(judged())[1])


def test_an_unfitted_scale_is_an_error() -> None:
    with pytest.raises(ConfigError) as error:
        BradleyTerry()(judged())
    assert str(error.value) == "labels.scale is not fitted yet, got none; give it, or let `smpo label` fit it"
    with pytest.raises(ConfigError, match="^scale must be a finite number > 0, got 0.0$"):
        BradleyTerry(scale=0.0)


def test_an_ensemble_averages_each_scorers_own_probability() -> None:
    """Ranges 0.1, 4 and 40. Pair 0: gaps -0.04, 1, -20 over them; pair 1: 0.04, -2, 20; pair 2: 0.1, 0, 0."""
    winner, p = Ensemble()(THREE)
    means = [(sigmoid(0.4) + sigmoid(-0.25) + sigmoid(0.5)) / 3, (sigmoid(0.4) + sigmoid(-0.5) + sigmoid(0.5)) / 3,
             (sigmoid(1.0) + 0.5 + 0.5) / 3]
    assert Ensemble().score_ranges(THREE) == (pytest.approx((0.2, 0.3)), (1.0, 5.0), (-10.0, 30.0))
    assert winner.tolist() == [1, 0, 0] and winner.dtype == torch.int64
    assert p.tolist() == pytest.approx(means, abs=1e-6) and p.dtype == torch.float32


def test_scorers_that_contradict_each_other_leave_no_preference() -> None:
    """Equal and opposite: exactly 1/2, and no tie of scores."""
    both = judged(torch.stack([SCORE_0, SCORE_1]), torch.stack([SCORE_1, SCORE_0]))
    assert Ensemble()(both)[1].tolist() == [0.5] * 3
    assert Ensemble().ties(both).tolist() == [False, False, True]
    assert Ensemble().ties(THREE).tolist() == [False] * 3  # of pair 2 two scorers are undecided, and one is not


def test_an_ensemble_of_one_is_the_smoothed_label() -> None:
    for one, other in zip(Ensemble()(judged()), Smoothed()(judged()), strict=True):
        assert torch.equal(one, other)


def test_a_scorers_units_do_not_matter() -> None:
    """Eq. 11 takes any affine map out: 1000 r + 7 in the second row."""
    factor, offset = doubles(1, 1000, 1)[:, None], doubles(0, 7, 0)[:, None]
    mapped = judged(factor * THREE.score_0 + offset, factor * THREE.score_1 + offset)
    for label in (Ensemble(), Majority(soft=True)):
        assert torch.equal(label(mapped)[0], label(THREE)[0])
        assert torch.allclose(label(mapped)[1], label(THREE)[1], atol=1e-6)


def test_a_majority_of_three_by_hand() -> None:
    """Pair 0: 1 of 3 for image 0; pair 1: 2 of 3; pair 2: 1, and two undecided, who count half: (1 + 2 / 2) / 3."""
    winner, p = Majority()(THREE)
    assert winner.tolist() == [1, 0, 0] and p.tolist() == [1, 1, 1]
    winner, p = Majority(soft=True)(THREE)
    assert winner.tolist() == [1, 0, 0] and winner.dtype == torch.int64
    assert p.tolist() == pytest.approx([2 / 3] * 3) and p.dtype == torch.float32


def test_an_even_number_of_scorers_can_tie() -> None:
    """The first two scorers: contradict each other, contradict each other, one is undecided."""
    two = Judgements(THREE.score_0[:2], THREE.score_1[:2], HUMAN, SHARES)
    assert Majority().ties(two).tolist() == [True, True, False]
    assert Majority()(two)[0].tolist() == [0, 0, 0]
    assert Majority(soft=True)(two)[1].tolist() == [0.5, 0.5, 0.75]


@pytest.mark.parametrize("label", [Hard(), Smoothed(winner_by="human")])
@pytest.mark.parametrize(("bad", "shown"), [(0.5, "0.5"), (float("nan"), "nan"), (-1.0, "-1.0")])
def test_undecided_people_are_an_error(label: Label, bad: float, shown: str) -> None:
    with pytest.raises(ValueError) as error:
        label(judged(human=doubles(1.0, bad, bad)))
    assert str(error.value) == (
        f"human labels must be 0 or 1, got {shown} (2 such); "
        "drop human ties (data.drop_human_ties=true) or set labels.winner_by=reward"
    )


@pytest.mark.parametrize("label", [Hard(winner_by="votes"), Votes()])
@pytest.mark.parametrize(("bad", "shown"), [(0.5, "0.5"), (float("nan"), "nan"), (1.5, "1.5")])
def test_undecided_votes_are_an_error(label: Label, bad: float, shown: str) -> None:
    with pytest.raises(ValueError) as error:
        label(judged(shares=doubles(1.0, bad, bad)))
    assert str(error.value) == (
        f"shares of votes must lie in [0, 1] and not be 1/2, got {shown} (2 such); drop those pairs first")


@pytest.mark.parametrize("label", [Smoothed(), Ensemble(), Smoothed(link="linear")])
@pytest.mark.parametrize(("scores", "got"), [([0.2, float("nan")], "nan"), ([0.2, 0.2], "0.0")])
def test_scores_without_a_range_are_an_error(label: Label, scores: list[float], got: str) -> None:
    with pytest.raises(ConfigError) as error:
        label(judged(doubles(*scores), doubles(*scores), HUMAN[:2], SHARES[:2]))
    assert str(error.value) == f"score_range must be a finite number > 0, got {got}"


def test_columns_and_unequal_lengths_are_an_error() -> None:
    with pytest.raises(ValueError) as error:
        judged(human=HUMAN[:, None])
    assert str(error.value) == "human_label must have shape (B,), got (3, 1); pass one number per pair"
    with pytest.raises(ValueError, match=r"^shapes must be equal, got score_0 \(1, 3\), score_1 \(1, 2\)$"):
        judged(SCORE_0, SCORE_1[:2])
    with pytest.raises(ValueError, match=r"^shapes must be equal, got human_label \(3,\), vote_share_0 \(2,\)$"):
        judged(shares=SHARES[:2])
    with pytest.raises(ValueError) as error:
        Judgements(SCORE_0, SCORE_1, HUMAN, SHARES)
    assert str(error.value) == "score_0 must have shape (M, 3), got (3,); pass a row per score table"


def test_people_are_those_who_voted_or_the_one_who_chose() -> None:
    known = judged(shares=doubles(0.25, float("nan"), float("nan")), human=doubles(1, 0, float("nan"))).people
    assert known[:2].tolist() == [0.25, 0.0] and known[2].isnan()


@pytest.mark.parametrize(("settings", "needs"), [
    ({"name": "hard"}, "human"), ({"name": "hard", "winner_by": "reward"}, "scores"),
    ({"name": "hard", "winner_by": "votes"}, "votes"), ({"name": "votes"}, "votes smoothed"),
    ({"name": "smoothed"}, "scores smoothed"), ({"name": "smoothed", "winner_by": "human"}, "scores human smoothed"),
    ({"name": "bradley_terry"}, "scores scale smoothed"),
    ({"name": "bradley_terry", "scale": 1, "winner_by": "votes"}, "scores votes smoothed"),
    ({"name": "ensemble"}, "scores smoothed"), ({"name": "majority"}, "scores"),
    ({"name": "majority", "soft": True}, "scores smoothed"),
])
def test_labels_say_what_they_need_and_give(settings: dict, needs: str) -> None:
    label = LABELS.build(settings)
    says = {"scores": label.needs_scores, "human": label.needs_human, "votes": label.needs_votes,
            "scale": label.needs_scale, "smoothed": label.is_smoothed}
    assert {name for name, is_so in says.items() if is_so} == set(needs.split())


@pytest.mark.parametrize(("settings", "tables"), [
    ({"name": "hard"}, ()), ({"name": "votes"}, ()), ({"name": "smoothed"}, ("mine",)),
    ({"name": "bradley_terry"}, ("mine",)), ({"name": "ensemble"}, ("mine", "second", "third")),
    ({"name": "ensemble", "scorers": ["third", "mine"]}, ("third", "mine")),
    ({"name": "majority", "scorers": ["second"]}, ("second",)),
])
def test_labels_name_the_tables_they_read(settings: dict, tables: tuple[str, ...]) -> None:
    assert LABELS.build(settings).tables(("mine", "second", "third")) == tables


@pytest.mark.parametrize("name", ["ensemble", "majority"])
def test_unknown_and_repeated_tables_are_an_error(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        LABELS.build({"name": name, "scorers": ["secund"]}).tables(("mine", "second"))
    assert str(error.value) == (
        "unknown score table in labels.scorers 'secund'; known: mine, second. Did you mean 'second'?")
    with pytest.raises(ConfigError) as error:
        LABELS.build({"name": name, "scorers": ["a", "b", "a"]})
    assert str(error.value) == "labels: labels.scorers must name each score table once, got a more than once"


def test_the_page_has_a_fragment_for_every_label_and_they_are_recipes() -> None:
    fragments = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)]
    assert {fragment["labels"]["name"] for fragment in fragments} == set(LABELS)
    whole = yaml.safe_load(recipe_path("sd15-smpo").read_text())
    for fragment in fragments:
        resolve({**whole, **({"objective": {"name": "smpo"}} | fragment)})


def test_score_range_of_a_recipe_is_a_pair_of_numbers() -> None:
    assert LABELS.build({"name": "smoothed", "score_range": [0.1, 0.3]}).score_range == (0.1, 0.3)


@pytest.mark.parametrize("name", ["hard", "smoothed", "bradley_terry"])
def test_unknown_judge_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        LABELS.build({"name": name, "winner_by": "humans"})
    assert str(error.value) == (
        "labels: unknown labels.winner_by 'humans'; known: human, reward, votes. Did you mean 'human'?")


def test_unknown_link_is_an_error() -> None:
    with pytest.raises(ConfigError) as error:
        LABELS.build({"name": "smoothed", "link": "linaer"})
    assert str(error.value) == "labels: unknown labels.link 'linaer'; known: sigmoid, linear. Did you mean 'linear'?"
