"""The rules of `smpo.labels.label.Label`, checked for every member of LABELS."""

import dataclasses
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import smpo.labels
from smpo.core.errors import ConfigError
from smpo.labels import LABELS
from smpo.labels.judgements import Judgements
from smpo.labels.label import Label

DOCS = Path(__file__).parents[2] / "docs"
PAIRS, TABLES = 7, ("mine", "second", "third")

# Settings of each member that are tried beside its defaults; together they name every setting that it has.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "hard": [{"winner_by": "reward"}, {"winner_by": "votes"}],
    "smoothed": [
        {"score_range": [-9.0, 9.0]}, {"link": "linear"}, {"winner_by": "human", "link": "linear"},
        {"winner_by": "votes"},
    ],
    "votes": [],
    "bradley_terry": [{"scale": 0.5}, {"winner_by": "human"}, {"winner_by": "votes", "scale": 2}],
    "ensemble": [{"scorers": ["third", "mine"]}],
    "majority": [{"soft": True}, {"scorers": ["mine"], "soft": True}],
}
CASES = [{"name": name, **settings} for name in LABELS for settings in ({}, *SETTINGS.get(name, []))]


def label_of(settings: dict[str, Any]) -> Label:
    """The label, with a scale where it needs a fitted one."""
    label: Label = LABELS.build(settings)
    return label.with_scale(0.7) if label.needs_scale else label


def judgements_for(label: Label, pairs: int = PAIRS) -> Judgements:
    """Decided pairs with all that the label asks for, and NaN or nothing in place of the rest."""
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(2, 3, pairs, generator=generator, dtype=torch.float64)
    shares = torch.rand(pairs, generator=generator, dtype=torch.float64)
    nothing = torch.full((pairs,), float("nan"), dtype=torch.float64)
    rows = [TABLES.index(name) for name in label.tables(TABLES)]
    return Judgements(
        draws[0, rows], draws[1, rows],
        (shares > 0.3).double() if label.needs_human else nothing, shares if label.needs_votes else nothing,
    )


def exchanged(judgements: Judgements) -> Judgements:
    """The same pairs; the images of each have changed places."""
    return Judgements(
        judgements.score_1, judgements.score_0, 1 - judgements.human_label, 1 - judgements.vote_share_0
    )


def holders_of_extremes(judgements: Judgements) -> list[int]:
    """The pairs that hold the smallest or the largest score of a table."""
    low = torch.minimum(judgements.score_0, judgements.score_1).argmin(dim=1)
    high = torch.maximum(judgements.score_0, judgements.score_1).argmax(dim=1)
    return [*low.tolist(), *high.tolist()]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_a_winner_and_a_probability_for_each_pair(settings: dict[str, Any]) -> None:
    label = label_of(settings)
    winner, p = label(judgements_for(label))
    assert winner.shape == p.shape == (PAIRS,) and winner.dtype == torch.int64 and p.dtype == torch.float32
    assert set(winner.tolist()) == {0, 1} and ((p >= 0) & (p <= 1)).all()
    assert label.is_smoothed or (p == 1).all()
    assert label.needs_human or label.needs_votes or (p >= 0.5).all()


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_images_that_change_places_change_the_winner_and_not_its_probability(settings: dict[str, Any]) -> None:
    label = label_of(settings)
    judgements = judgements_for(label)
    winner, p = label(judgements)
    other, same = label(exchanged(judgements))
    assert torch.equal(other, 1 - winner) and torch.allclose(same, p, atol=1e-7, rtol=0)


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_a_pair_has_one_label_alone_and_in_a_batch(settings: dict[str, Any]) -> None:
    """A label that measures ranges sees, besides the pair, those that hold the smallest and the largest scores."""
    label = label_of(settings)
    judgements = judgements_for(label)
    winner, p = label(judgements)
    company = holders_of_extremes(judgements) if label.score_ranges(judgements) else []
    for pair in range(PAIRS):
        alone = label(judgements.rows(torch.tensor([pair, *company])))
        assert (alone[0][0], alone[1][0]) == (winner[pair], p[pair])


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_ranges_and_ties_have_a_row_per_table_and_a_number_per_pair(settings: dict[str, Any]) -> None:
    label = label_of(settings)
    judgements = judgements_for(label)
    assert len(label.score_ranges(judgements)) in (0, len(label.tables(TABLES)))
    assert bool(label.tables(TABLES)) is label.needs_scores
    if label.needs_scores:
        equal = Judgements(judgements.score_0, judgements.score_0, judgements.human_label, judgements.vote_share_0)
        assert label.ties(equal).tolist() == [True] * PAIRS and not label.ties(judgements).any()


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_a_pair_without_the_choice_or_the_votes_that_are_needed_is_an_error(settings: dict[str, Any]) -> None:
    label = label_of(settings)
    judgements = judgements_for(label)
    for name, needed in (("human_label", label.needs_human), ("vote_share_0", label.needs_votes)):
        for bad in (0.5, float("nan")):
            values = getattr(judgements, name).clone()
            values[3] = bad
            if needed:
                with pytest.raises(ValueError, match=rf"got {bad} \(1 such\)"):
                    label(dataclasses.replace(judgements, **{name: values}))


@pytest.mark.parametrize("name", LABELS)
def test_bad_settings_are_refused_in_one_line_that_names_the_setting(name: str) -> None:
    settings = [field.name for field in dataclasses.fields(LABELS.resolve(name))]
    for setting in (*settings, "no_such_setting"):
        with pytest.raises(ConfigError) as error:
            LABELS.build({"name": name, setting: "no such value"})
        assert f"labels.{setting}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", LABELS)
def test_every_setting_is_tried(name: str) -> None:
    assert name in SETTINGS, f"add the settings of '{name}' to SETTINGS, and numbers worked by hand to test_members.py"
    tried = {setting for settings in SETTINGS[name] for setting in settings}
    assert tried == {field.name for field in dataclasses.fields(LABELS.resolve(name))}


@pytest.mark.parametrize("name", LABELS)
def test_every_member_is_documented(name: str) -> None:
    table = [line for line in (DOCS / "labels.md").read_text().splitlines() if line.startswith(f"| `{name}`")]
    assert table, f"docs/labels.md has no row for `{name}`"
    assert f"`{name}`" in (DOCS / "equations.md").read_text(), f"docs/equations.md does not name `{name}`"


def test_the_pages_table_names_no_other_label() -> None:
    assert set(re.findall(r"^\| `(\w+)`", (DOCS / "labels.md").read_text(), re.MULTILINE)) <= set(LABELS)


def test_importing_every_module_of_the_labels_imports_no_torch() -> None:
    modules = [module.name for module in pkgutil.iter_modules(smpo.labels.__path__, "smpo.labels.")]
    assert {LABELS[name].split(":")[0] for name in LABELS} <= set(modules)
    code = f"import sys, {', '.join(modules)}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
