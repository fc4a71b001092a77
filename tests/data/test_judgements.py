"""What people said about a pair: which statements agree, which are a tie, and which contradict each other.

The table was written down before it was run: None is no label, "!" a malformed row.
"""

import math
from typing import Any

import pytest

from smpo.data.layouts import NAMES
from smpo.data.records import RawPair
from smpo.data.rows import judgement
from smpo.data.values import RowProblem
from smpo.preparation.options import PairOptions
from smpo.preparation.row_checks import check_pair
from tests.data.pictures import png

FIELDS = {name: name for name in NAMES} | {"image_0": "chosen", "image_1": "rejected"}

CASES = [  # columns beside image_0 and image_1 -> (label_0, share of votes for image 0)
    ({}, (None, None)),
    ({"label_0": 1}, (1.0, None)),
    ({"label_0": 0.5}, (0.5, None)),
    ({"label_0": 1, "preferred": 0}, (1.0, None)),
    ({"label_0": 1, "preferred": 1}, "!"),
    ({"label_0": 0.5, "preferred": 0}, "!"),
    ({"label_0": 0.5, "preferred": "tie"}, (0.5, None)),
    ({"label_0": 1, "label_1": 0}, (1.0, None)),
    ({"label_0": 1, "label_1": 1}, "!"),
    ({"label_1": 1}, (0.0, None)),
    ({"preferred": "left"}, (1.0, None)),
    ({"preferred": "RIGHT "}, (0.0, None)),
    ({"preferred": True}, "!"),
    ({"preferred": [0]}, "!"),
    ({"label_0": 1, "vote_share_0": 0.2}, (1.0, 0.2)),          # one person against a majority
    ({"label_0": 1, "vote_share_0": 0.0}, "!"),                 # and against everybody
    ({"label_0": 0, "votes_0": 3, "votes_1": 0}, "!"),
    ({"label_0": 0.5, "vote_share_0": 0.8}, (0.5, 0.8)),
    ({"label_0": 1, "vote_share_0": 0.5}, (1.0, 0.5)),
    ({"vote_share_0": 0.75, "votes_0": 3, "votes_1": 1}, (None, 0.75)),
    ({"vote_share_0": 0.67, "votes_0": 2, "votes_1": 1}, (None, 0.67)),  # rounded
    ({"vote_share_0": 0.25, "votes_0": 3, "votes_1": 1}, "!"),
    ({"vote_share_0": 0.5, "votes_0": 9, "votes_1": None}, (None, 0.5)),
    ({"votes_0": 9, "votes_1": None}, "!"),
    ({"votes_0": 0, "votes_1": 0}, (None, None)),
    ({"votes_0": "2", "votes_1": "6"}, (None, 0.25)),
    ({"votes_0": -1, "votes_1": 2}, "!"),
    ({"votes_0": 1e308, "votes_1": 1e308}, (None, None)),  # their sum is infinite
    ({"label_0": 1, "has_label": 0}, (None, None)),
    ({"label_0": 1, "has_label": "False"}, (None, None)),
    ({"label_0": 1, "has_label": "no"}, (None, None)),
    ({"label_0": 1, "has_label": None}, (1.0, None)),
    ({"label_0": "junk", "has_label": False}, (None, None)),
    ({"label_0": 1, "has_label": "maybe"}, "!"),
    ({"label_0": 2}, (2.0, None)),                       # invalid_label, by row_checks
]
CHOSEN = [  # beside chosen and rejected
    ({}, (1.0, None)),
    ({"label_0": 1}, (1.0, None)),
    ({"label_0": 0}, "!"),
    ({"preferred": 1}, "!"),
    ({"label_0": 0.5}, (0.5, None)),                     # a tie is a tie
    ({"preferred": "tie"}, (0.5, None)),
    ({"has_label": False}, (None, None)),
    ({"vote_share_0": 0.9}, (1.0, 0.9)),
    ({"vote_share_0": 0.4}, (1.0, 0.4)),
    ({"vote_share_0": 0}, "!"),
    ({"label_0": 0.5, "vote_share_0": 0}, (0.5, 0.0)),
]


def judged(values: dict[str, Any], first_wins: bool) -> Any:
    try:
        label, share = judgement(values, FIELDS, first_wins=first_wins)
    except RowProblem as problem:
        assert "\n" not in problem.detail
        return "!"
    return None if math.isnan(label) else label, share


@pytest.mark.parametrize(("values", "expected"), CASES)
def test_what_columns_say(values: dict, expected: Any):
    assert judged(values, first_wins=False) == expected


@pytest.mark.parametrize(("values", "expected"), CHOSEN)
def test_what_columns_say_beside_chosen_and_rejected(values: dict, expected: Any):
    assert judged(values, first_wins=True) == expected


def test_a_contradiction_names_its_columns():
    with pytest.raises(RowProblem) as caught:
        judgement({"label_0": 1, "preferred": "right"}, FIELDS, first_wins=False)
    assert caught.value.detail == "the labels contradict each other: label_0 is 1, preferred is 'right'"
    with pytest.raises(RowProblem) as caught:
        judgement({"label_0": 0}, FIELDS, first_wins=True)
    assert caught.value.detail == "label_0 says that rejected is preferred, its name that chosen is"


@pytest.mark.parametrize(("label", "share", "reason"), [
    (0.5, None, "human_tie"), (0.5, 0.5, "human_tie"), (0.5, 0.8, ""), (1.0, 0.5, ""), (math.nan, 0.5, "human_tie"),
    (math.nan, 0.8, ""), (math.nan, None, "missing_label"), (0.5, 1.8, "invalid_label")])
def test_a_tie_of_one_person_is_none_where_a_majority_decided(label: float, share: float | None, reason: str):
    pair = RawPair(0, "p", "x", png(0), png(1), label, "a", "b", vote_share_0=share)
    assert check_pair(pair, PairOptions()).reason == reason
