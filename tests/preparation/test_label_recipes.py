"""`smpo label` by the command line: simulated people, three real scorers, and every label that reads them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from smpo.cli.app import app
from smpo.core.artefacts import read_manifest
from smpo.core.errors import ConfigError, StaleError
from smpo.data.pair_set import PairSet
from smpo.preparation.calibration import fit_scale
from smpo.preparation.label import LabelTable
from smpo.preparation.score import ScoreTable
from tests.tiny_people import write_people

REWARD, CLIP = ("package://smpo.tiny/weights/tiny-reward", "package://smpo.tiny/weights/tiny-clip")
NUM_PAIRS = 30


def smpo(work: Path, verb: str, *overrides: str) -> Result:
    """`smpo VERB` in this process, with a recipe of three scorers."""
    return CliRunner().invoke(app, [
        verb, "tiny-demo", "sampling=null", f"data={{source: {work}/people.jsonl}}", f"paths.workdir={work}",
        f"scoring.also={{clip: {{name: clip, source: '{CLIP}'}}, truth: {{name: verifier}}}}", *overrides,
    ])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of images that each differ from the prompt in an attribute, voted on by 4 blunt annotators, and scored."""
    work = tmp_path_factory.mktemp("work")
    write_people(work, NUM_PAIRS)
    for verb in ("pairs", "score"):
        assert smpo(work, verb).exit_code == 0
    return work


def labelled(work: Path, settings: str) -> tuple[str, LabelTable]:
    """What `smpo label` says with the labels section `settings`, in one line, and the labels."""
    folder = work / ("labels" + re.sub(r"\W+", "-", settings))
    result = smpo(work, "label", f"labels={settings}", f"paths.label={folder}")
    assert result.exit_code == 0, result.exception
    return " ".join(result.output.split()), LabelTable.open(folder)


def by_id(work: Path) -> dict[str, dict]:
    lines = (work / "people.jsonl").read_text().splitlines()
    return {f"row-{row}": json.loads(line) for row, line in enumerate(lines)}


def test_votes_are_read_from_the_source(work: Path):
    output, table = labelled(work, "{name: votes}")
    people = by_id(work)
    tied = [name for name, row in people.items() if row["vote_share_0"] == 0.5]
    assert tied and table.pair_ids == tuple(name for name in people if name not in tied)
    shares = [people[name]["vote_share_0"] for name in table.pair_ids]
    assert table.winner.tolist() == [int(share < 0.5) for share in shares]
    assert table.p_winner.tolist() == [max(share, 1 - share) for share in shares]
    assert f"{len(shares)} of {NUM_PAIRS} pairs labelled" in output
    manifest = read_manifest(table.folder, stage="label")
    assert manifest["results"]["dropped"] == {"vote_tie": len(tied)} and set(manifest["inputs"]) == {"pairs"}


def test_one_person_and_the_majority_are_other_winners(work: Path):
    """`label_0` is the first of four annotators: some pairs are decided against him."""
    alone, majority = (labelled(work, f"{{name: hard, winner_by: {judge}}}")[1] for judge in ("human", "votes"))
    first = dict(zip(alone.pair_ids, alone.winner.tolist(), strict=True))
    assert len(alone) == NUM_PAIRS > len(majority)
    differ = [name for name, winner in zip(majority.pair_ids, majority.winner.tolist(), strict=True)
              if first[name] != winner]
    assert 0 < len(differ) < len(majority) / 2
    assert all(by_id(work)[name]["vote_share_0"] in (0.25, 0.75) for name in differ)


def test_an_ensemble_reads_the_named_tables_and_records_them(work: Path):
    _, everything = labelled(work, "{name: ensemble}")
    _, two = labelled(work, "{name: ensemble, scorers: [truth, pickscore]}")
    tables = {name: ScoreTable.open(work / "score" / name) for name in ("pickscore", "clip", "truth")}
    for table, names in ((everything, tables), (two, ("truth", "pickscore"))):
        manifest = read_manifest(table.folder, stage="label")
        assert manifest["inputs"] == {"pairs": PairSet.open(work / "pairs").fingerprint,
                                      **{f"scores.{name}": tables[name].fingerprint for name in names}}
        assert manifest["results"]["scorers"] == {name: tables[name].identity for name in names}
        assert list(manifest["results"]["score_ranges"]) == list(names)
        p_0 = torch.stack([_eq_11_12(tables[name]) for name in names]).mean(dim=0)
        kept = torch.tensor([pair_id in table.pair_ids for pair_id in PairSet.open(work / "pairs").pair_ids])
        assert kept.all()
        assert torch.equal(table.winner, (p_0 < 0.5).long())
        assert torch.allclose(table.p_winner.double(), torch.maximum(p_0, 1 - p_0), atol=1e-6)


def _eq_11_12(table: ScoreTable) -> torch.Tensor:
    """softmax of both images' scaled scores, as printed: probability of image 0."""
    scores = torch.stack([table.score_0, table.score_1], dim=1).double()
    scaled = (scores - scores.max()) / (scores.max() - scores.min())
    return scaled.softmax(dim=1)[:, 0]


def test_a_majority_is_counted_over_the_tables(work: Path):
    """Three scorers; where the verifier is undecided and the others disagree there is a tie."""
    _, table = labelled(work, "{name: majority}")
    tables = [ScoreTable.open(work / "score" / name) for name in ("pickscore", "clip", "truth")]
    balance = sum((t.score_0 > t.score_1).int() - (t.score_0 < t.score_1).int() for t in tables).tolist()
    ids = PairSet.open(work / "pairs").pair_ids
    expected = {name: int(votes < 0) for name, votes in zip(ids, balance, strict=True) if votes}
    assert dict(zip(table.pair_ids, table.winner.tolist(), strict=True)) == expected
    assert table.p_winner.tolist() == [1.0] * len(expected)
    dropped = read_manifest(table.folder, stage="label")["results"]["dropped"]
    assert dropped == ({"score_tie": balance.count(0)} if 0 in balance else {})


def test_bradley_terry_is_fitted_to_the_votes_and_says_so(work: Path):
    output, table = labelled(work, "{name: bradley_terry}")
    scores, people = ScoreTable.open(work / "score" / "pickscore"), by_id(work)
    gaps = (scores.score_0.double() - scores.score_1.double()).numpy()
    fit = fit_scale(gaps, np.array([row["vote_share_0"] for row in people.values()]))
    results = read_manifest(table.folder, stage="label")["results"]
    assert results["scale"] == {"scale": fit.scale, "standard_error": fit.standard_error, "pairs": NUM_PAIRS}
    assert table.p_winner.tolist() == pytest.approx(1 / (1 + np.exp(-abs(gaps) / fit.scale)), abs=1e-6)
    assert sum(row["pairs"] for row in results["calibration"]) == NUM_PAIRS and len(results["calibration"]) == 10
    assert f"scale {fit.scale:.4g} +- {fit.standard_error:.2g} fitted to {NUM_PAIRS} pairs" in output


def test_labels_of_another_table_are_refused(work: Path):
    _, table = labelled(work, "{name: ensemble, scorers: [clip]}")
    labels = "labels={name: ensemble, scorers: [truth]}"
    refused = smpo(work, "label", labels, f"paths.label={table.folder}").exception
    assert isinstance(refused, StaleError) and "label.scorers=['clip'] (now ['truth'])" in str(refused)


@pytest.mark.parametrize(("labels", "message"), [
    ("{name: ensemble, scorers: [hps]}",
     "unknown score table in labels.scorers 'hps'; known: pickscore, clip, truth."),
    ("{name: majority, scorers: [turth]}",
     "unknown score table in labels.scorers 'turth'; known: pickscore, clip, truth. Did you mean 'truth'?"),
])
def test_a_table_that_the_recipe_does_not_make_is_refused_before_anything_runs(work: Path, labels: str, message: str):
    refused = smpo(work, "label", f"labels={labels}", "--dry-run")
    assert isinstance(refused.exception, ConfigError) and str(refused.exception) == message


def test_hard_majorities_fit_objectives_of_hard_labels_and_soft_ones_do_not(work: Path):
    dpo = "objective={name: dpo, beta: 1000}"
    assert smpo(work, "label", "labels={name: majority}", dpo, "--dry-run").exit_code == 0
    refused = smpo(work, "label", "labels={name: majority, soft: true}", dpo, "--dry-run")
    assert str(refused.exception).startswith("objective 'dpo' takes hard labels, got labels.name=majority; set ")
