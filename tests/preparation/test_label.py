"""Stage `label`: hand-worked labels, dropped ties, and the refusal of another pair set's scores."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from smpo.core.artefacts import read_manifest
from smpo.core.errors import DataError, StaleError
from smpo.data.pair_set import PairSet
from smpo.labels import LABELS
from smpo.preparation.label import LabelTable, describe, label_pairs
from smpo.preparation.options import PairOptions
from smpo.preparation.pairs import prepare_pairs
from smpo.preparation.score import ScoreTable, score_pairs
from tests.data.pictures import good_row, write_parquet
from tests.preparation.scorers import Brightness

HUMAN = [1.0, 0.0, 1.0, 1.0, 0.5, None]
SCORE_0 = [0.30, 0.25, 0.10, 0.20, 0.40, 0.20]
SCORE_1 = [0.10, 0.35, 0.50, 0.20, 0.20, 0.30]


@dataclass
class Fixed(Brightness):
    """Gives the scores above, in order."""

    def score(self, inputs, prompts):
        scores = [score for both in zip(SCORE_0, SCORE_1, strict=True) for score in both]
        return torch.tensor(scores[:len(inputs)])


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[PairSet, ScoreTable]:
    """Six pairs: people and scores agree, agree, disagree, tie in score, tie of people, unlabelled."""
    root = tmp_path_factory.mktemp("scored")
    rows = [{**good_row(index), "label_0": human} for index, human in enumerate(HUMAN)]
    write_parquet(root / "s.parquet", rows)
    prepare_pairs(str(root / "s.parquet"), root / "pairs", options=PairOptions(labelled=False, drop_human_ties=False))
    pairs = PairSet.open(root / "pairs")
    score_pairs(pairs, {"fixed": Fixed()}, root / "scores")
    return pairs, ScoreTable.open(root / "scores" / "fixed")


def dropped(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]


def test_smoothed_labels(scored: tuple[PairSet, ScoreTable], tmp_path: Path):
    """Range over the five kept pairs: 0.5 - 0.1 = 0.4, so p = sigmoid(|difference| / 0.4).

    Differences 0.2, 0.1, 0.4, 0.2, 0.1; people decided pairs 0, 1, 2 and agree on the first two.
    """
    pairs, scores = scored
    report = label_pairs(pairs, {"fixed": scores}, LABELS.build({"name": "smoothed"}), tmp_path / "labels")
    table = LabelTable.open(tmp_path / "labels")
    assert table.pair_ids == ("1000", "1001", "1002", "1004", "1005")
    assert table.winner.tolist() == [0, 1, 1, 0, 1]
    expected = [1 / (1 + math.exp(-d / 0.4)) for d in (0.2, 0.1, 0.4, 0.2, 0.1)]
    assert table.p_winner.tolist() == pytest.approx(expected, abs=1e-6)
    assert (table.winner.dtype, table.p_winner.dtype) == (torch.int64, torch.float32)
    assert report.dropped == {"score_tie": 1}
    assert dropped(tmp_path / "labels") == [{"pair_id": "1003", "reason": "score_tie"}]
    assert report.score_ranges == {"fixed": pytest.approx((0.1, 0.5))}
    assert report.agreement == {"fixed": pytest.approx(2 / 3)}
    quantiles = report.p_winner_quantiles
    assert [quantiles[q] for q in ("0.0", "0.5", "1.0")] == pytest.approx([expected[1], expected[0], expected[2]])
    results = read_manifest(tmp_path / "labels", stage="label")["results"]
    assert results["scorers"] == {"fixed": {"name": "brightness", "weights": "one"}}
    assert describe(report) == (
        f"5 of 6 pairs labelled in {tmp_path / 'labels'}; dropped: 1 score_tie; fixed in [0.1, 0.5]; "
        "median p_winner 0.6225; fixed agrees with people on 66.7%")


def test_range_is_measured_over_kept_pairs(scored: tuple[PairSet, ScoreTable], tmp_path: Path):
    """With the human judge pairs 3 (score tie), 4 and 5 (no preference) go, and the 0.4 of pair 4 with them."""
    pairs, scores = scored
    label = LABELS.build({"name": "smoothed", "winner_by": "human"})
    report = label_pairs(pairs, {"fixed": scores}, label, tmp_path / "labels")
    assert report.dropped == {"score_tie": 1, "human_tie": 1, "no_human_label": 1}
    table = LabelTable.open(tmp_path / "labels")
    assert table.winner.tolist() == [0, 1, 0]
    assert table.p_winner[2].item() == pytest.approx(1 / (1 + math.exp(1)))  # people chose the other: p < 1/2


def test_given_range(scored: tuple[PairSet, ScoreTable], tmp_path: Path):
    pairs, scores = scored
    label = LABELS.build({"name": "smoothed", "score_range": (0.0, 0.2)})
    assert label_pairs(pairs, {"fixed": scores}, label, tmp_path / "labels").score_ranges == {"fixed": (0.0, 0.2)}
    assert LabelTable.open(tmp_path / "labels").p_winner[0].item() == pytest.approx(1 / (1 + math.exp(-1)))


def test_ties_are_kept_on_request(scored: tuple[PairSet, ScoreTable], tmp_path: Path):
    pairs, scores = scored
    smoothed = LABELS.build({"name": "smoothed"})
    label_pairs(pairs, {"fixed": scores}, smoothed, tmp_path / "labels", drop_score_ties=False)
    table = LabelTable.open(tmp_path / "labels")
    assert len(table) == 6 and table.p_winner[3] == 0.5


def test_human_labels_without_scores(scored: tuple[PairSet, ScoreTable], tmp_path: Path):
    """Equal scores do not matter to a label that reads none."""
    report = label_pairs(scored[0], {}, LABELS.build({"name": "hard"}), tmp_path / "labels")
    table = LabelTable.open(tmp_path / "labels")
    assert table.pair_ids == ("1000", "1001", "1002", "1003")
    assert table.winner.tolist() == [0, 1, 0, 0]
    assert table.p_winner.tolist() == [1.0] * 4
    assert (report.agreement, report.score_ranges, report.scale) == ({}, {}, None)
    assert report.dropped == {"human_tie": 1, "no_human_label": 1}


def test_score_ties_do_not_matter_to_human_labels(scored: tuple[PairSet, ScoreTable], tmp_path: Path):
    """Scores may be given for the agreement alone; of the decided pairs 0 to 3 they tie on the last, 2 of 3 agree."""
    report = label_pairs(scored[0], {"fixed": scored[1]}, LABELS.build({"name": "hard"}), tmp_path / "labels")
    assert report.kept == 4 and report.agreement == {"fixed": pytest.approx(2 / 3)}


def test_scores_are_needed(scored: tuple[PairSet, ScoreTable], tmp_path: Path):
    with pytest.raises(DataError) as caught:
        label_pairs(scored[0], {}, LABELS.build({"name": "smoothed"}), tmp_path / "labels")
    assert str(caught.value) == "label Smoothed needs a score table, got none; run `smpo score` first"


def test_scores_of_another_pair_set(scored: tuple[PairSet, ScoreTable], pairs: PairSet, tmp_path: Path):
    with pytest.raises(StaleError) as caught:
        label_pairs(pairs, {"fixed": scored[1]}, LABELS.build({"name": "smoothed"}), tmp_path / "labels")
    assert str(caught.value) == (f"{scored[1].folder} holds the scores of another pair set than {pairs.folder}; "
                                 "run `smpo score` for this one")


def test_nothing_to_label(pairs: PairSet, tmp_path: Path):
    class Constant(Brightness):
        def score(self, inputs, prompts):
            return torch.full((len(inputs),), 0.5)

    score_pairs(pairs, {"constant": Constant()}, tmp_path / "scores")
    scores = ScoreTable.open(tmp_path / "scores" / "constant")
    with pytest.raises(DataError) as caught:
        label_pairs(pairs, {"fixed": scores}, LABELS.build({"name": "smoothed"}), tmp_path / "labels")
    assert str(caught.value) == f"no pair of {pairs.folder} can be labelled: 10 score_tie; use another label or scorer"


def test_second_run_and_stale_labels(scored: tuple[PairSet, ScoreTable], tmp_path: Path):
    pairs, scores = scored
    label = LABELS.build({"name": "smoothed"})
    first = label_pairs(pairs, {"fixed": scores}, label, tmp_path / "labels")
    assert label_pairs(pairs, {"fixed": scores}, label, tmp_path / "labels") == first
    with pytest.raises(StaleError, match=r"label.class='Smoothed' \(now 'Hard'\)"):
        label_pairs(pairs, {"fixed": scores}, LABELS.build({"name": "hard"}), tmp_path / "labels")


@pytest.fixture(scope="module")
def voted(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    """Five pairs: 3 of 4 votes for image 0, for image 1, even, none (one person chose image 0), and nothing known."""
    root = tmp_path_factory.mktemp("voted")
    known = [(None, 0.75), (1.0, 0.25), (None, 0.5), (1.0, None), (None, None)]
    rows = [{**good_row(index), "label_0": human, "vote_share_0": share} for index, (human, share) in enumerate(known)]
    write_parquet(root / "s.parquet", rows)
    prepare_pairs(str(root / "s.parquet"), root / "pairs", options=PairOptions(labelled=False, drop_human_ties=False))
    return PairSet.open(root / "pairs")


def test_labels_from_votes(voted: PairSet, tmp_path: Path):
    """Nobody's label is missed: only pairs with votes that are no tie are kept."""
    for number, label in enumerate(({"name": "votes"}, {"name": "hard", "winner_by": "votes"})):
        out = tmp_path / str(number)
        report = label_pairs(voted, {}, LABELS.build(label), out)
        table = LabelTable.open(out)
        assert table.pair_ids == ("1000", "1001") and table.winner.tolist() == [0, 1]
        assert table.p_winner.tolist() == ([0.75, 0.75] if number == 0 else [1.0, 1.0])
        assert report.dropped == {"no_votes": 2, "vote_tie": 1}
        assert [row["reason"] for row in dropped(out)] == ["vote_tie", "no_votes", "no_votes"]


def test_human_labels_where_only_votes_are_known_are_the_majoritys(voted: PairSet, tmp_path: Path):
    """Pair 1 keeps its one person's label against 3 of 4 votes."""
    report = label_pairs(voted, {}, LABELS.build({"name": "hard"}), tmp_path / "labels")
    table = LabelTable.open(tmp_path / "labels")
    assert table.pair_ids == ("1000", "1001", "1003") and table.winner.tolist() == [0, 0, 0]
    assert report.dropped == {"human_tie": 1, "no_human_label": 1}
    (row,) = report.calibration  # predicted 1, and 0.75, 0.25 and 1 of the people agree
    assert (row.pairs, row.predicted, row.observed) == (3, 1.0, pytest.approx(2 / 3))


def test_a_scale_that_cannot_be_fitted_leaves_no_labels(pairs: PairSet, tmp_path: Path):
    """Scores that agree with people on every pair take any scale that is given, and fit none."""
    class Obedient(Brightness):
        def score(self, inputs, prompts):
            return torch.tensor([side for human in pairs.human_labels.tolist() for side in (human, 1 - human)])

    score_pairs(pairs, {"obedient": Obedient()}, tmp_path / "scores")
    scores = {"obedient": ScoreTable.open(tmp_path / "scores" / "obedient")}
    report = label_pairs(pairs, scores, LABELS.build({"name": "bradley_terry", "scale": 0.5}), tmp_path / "given")
    assert report.scale is None and report.agreement == {"obedient": 1.0}
    with pytest.raises(DataError, match="^labels.scale cannot be fitted: the scores agree with people on all 10 pairs"):
        label_pairs(pairs, scores, LABELS.build({"name": "bradley_terry"}), tmp_path / "fitted")
    with pytest.raises(DataError, match="is unfinished; run `smpo label` again"):
        LabelTable.open(tmp_path / "fitted")
