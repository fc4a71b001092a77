"""Seam 1: who wins and by how much."""

import pytest
import torch

from smpo.errors import ConfigError
from smpo.labels import LABELS
from smpo.labels.hard import Hard
from smpo.labels.smoothed import Smoothed
from tests.maths.references import sigmoid

SCORE_0 = torch.tensor([0.20, 0.25, 0.22])
SCORE_1 = torch.tensor([0.24, 0.21, 0.22])
HUMAN = torch.tensor([1.0, 1.0, 0.0])  # label_0: people preferred images 0, 0, 1


def test_hard_labels_follow_people_and_weigh_fully() -> None:
    winner, p = Hard()(SCORE_0, SCORE_1, HUMAN)
    assert winner.tolist() == [0, 0, 1] and winner.dtype == torch.int64
    assert p.tolist() == [1, 1, 1] and p.dtype == torch.float32


def test_hard_labels_follow_the_reward_where_asked() -> None:
    winner, p = Hard(winner_by="reward")(SCORE_0[:2], SCORE_1[:2], torch.full((2,), float("nan")))
    assert winner.tolist() == [1, 0] and p.tolist() == [1, 1]


def test_smoothed_labels_over_the_measured_range() -> None:
    """Range 0.20 to 0.25; winners 1, 0, 0 (tie); gaps 0.04, 0.04, 0 over 0.05: sigmoid(0.8), sigmoid(0.8), 1/2."""
    label = Smoothed()
    winner, p = label(SCORE_0, SCORE_1, HUMAN)
    assert label.range_used(SCORE_0, SCORE_1) == pytest.approx((0.20, 0.25))
    assert winner.tolist() == [1, 0, 0] and winner.dtype == torch.int64
    assert p.tolist() == pytest.approx([sigmoid(0.8), sigmoid(0.8), 0.5], abs=1e-6) and p.dtype == torch.float32


def test_smoothed_labels_over_a_given_range() -> None:
    """The same gaps over 0.2."""
    label = Smoothed(score_range=(0.1, 0.3))
    assert label.range_used(SCORE_0, SCORE_1) == (0.1, 0.3)
    assert label(SCORE_0, SCORE_1, HUMAN)[1].tolist() == pytest.approx([sigmoid(0.2), sigmoid(0.2), 0.5], abs=1e-6)


def test_probability_falls_below_one_half_where_people_disagree_with_the_reward() -> None:
    """Pair 0: people chose image 0, whose score is 0.04 lower: sigmoid(-0.8); pair 1 agrees."""
    winner, p = Smoothed(winner_by="human")(SCORE_0, SCORE_1, HUMAN)
    assert winner.tolist() == [0, 0, 1]
    assert p.tolist() == pytest.approx([sigmoid(-0.8), sigmoid(0.8), 0.5], abs=1e-6)


def test_exchanging_the_images_exchanges_the_winner_and_keeps_p() -> None:
    label = Smoothed(score_range=(0.1, 0.3))
    winner, p = label(SCORE_0[:2], SCORE_1[:2], HUMAN[:2])
    swapped_winner, swapped_p = label(SCORE_1[:2], SCORE_0[:2], 1 - HUMAN[:2])
    assert torch.equal(swapped_winner, 1 - winner) and torch.equal(swapped_p, p)


@pytest.mark.parametrize("label", [
    Hard(), Hard(winner_by="reward"), Smoothed(score_range=(0.1, 0.3)),
    Smoothed(winner_by="human", score_range=(0.1, 0.3)),
])
def test_batch_equals_its_pairs_alone(label: Hard | Smoothed) -> None:
    winner, p = label(SCORE_0, SCORE_1, HUMAN)
    for i in range(3):
        one = slice(i, i + 1)
        alone_winner, alone_p = label(SCORE_0[one], SCORE_1[one], HUMAN[one])
        assert torch.equal(alone_winner, winner[one]) and torch.equal(alone_p, p[one])


@pytest.mark.parametrize("label", [Hard(), Smoothed(winner_by="human")])
@pytest.mark.parametrize(("bad", "shown"), [(0.5, "0.5"), (float("nan"), "nan"), (-1.0, "-1.0")])
def test_undecided_people_are_an_error(label: Hard | Smoothed, bad: float, shown: str) -> None:
    with pytest.raises(ValueError) as error:
        label(SCORE_0, SCORE_1, torch.tensor([1.0, bad, bad]))
    assert str(error.value) == (
        f"human labels must be 0 or 1, got {shown} (2 such); "
        "drop human ties (data.drop_human_ties=true) or set labels.winner_by=reward"
    )


@pytest.mark.parametrize(("scores", "got"), [([0.2, float("nan")], "nan"), ([0.2, 0.2], "0.0")])
def test_scores_without_a_range_are_an_error(scores: list[float], got: str) -> None:
    with pytest.raises(ConfigError) as error:
        Smoothed()(torch.tensor(scores), torch.tensor(scores), torch.ones(2))
    assert str(error.value) == f"score_range must be a finite number > 0, got {got}"


def test_columns_are_an_error() -> None:
    with pytest.raises(ValueError) as error:
        Hard()(SCORE_0, SCORE_1, torch.ones(3, 1))
    assert str(error.value) == "human_label must have shape (B,), got (3, 1); pass one number per pair"


@pytest.mark.parametrize("label", [Hard(winner_by="reward"), Smoothed()])
def test_scores_of_unequal_length_are_an_error(label: Hard | Smoothed) -> None:
    with pytest.raises(ValueError) as error:
        label(SCORE_0, SCORE_1[:2], HUMAN)
    assert str(error.value) == "shapes must be equal, got score_0 (3,), score_1 (2,)"


@pytest.mark.parametrize(("settings", "needs_scores", "needs_human"), [
    ({"name": "hard"}, False, True), ({"name": "hard", "winner_by": "reward"}, True, False),
    ({"name": "smoothed"}, True, False), ({"name": "smoothed", "winner_by": "human"}, True, True),
])
def test_labels_say_what_they_need(settings: dict, needs_scores: bool, needs_human: bool) -> None:
    label = LABELS.build(settings)
    assert (label.needs_scores, label.needs_human) == (needs_scores, needs_human)


def test_score_range_of_a_recipe_is_a_pair_of_numbers() -> None:
    assert LABELS.build({"name": "smoothed", "score_range": [0.1, 0.3]}).score_range == (0.1, 0.3)


@pytest.mark.parametrize("name", ["hard", "smoothed"])
def test_unknown_judge_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        LABELS.build({"name": name, "winner_by": "humans"})
    assert str(error.value) == (
        "labels: unknown labels.winner_by 'humans'; known: human, reward. Did you mean 'human'?")
