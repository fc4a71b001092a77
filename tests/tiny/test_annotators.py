"""Simulated annotators: known tastes, votes that can be worked by hand, and pair sets that the readers read."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from smpo.core.errors import ConfigError, DataError
from smpo.data.pair_set import PairSet
from smpo.preparation.pairs import prepare_pairs
from smpo.tiny.annotators import (
    KINDS,
    MEMBERS,
    Population,
    advantage,
    annotate,
    cast_votes,
    describe,
    draw_population,
    main,
    read_lines,
)
from smpo.tiny.prompts import phrase
from smpo.tiny.scenes import Scene, SceneObject, draw

HOUSE = Scene((SceneObject("house", "red", "left", "small"),), "blue")
WRONG_COLOUR = Scene((SceneObject("house", "orange", "left", "small"),), "blue")
WRONG_BACKGROUND = Scene((SceneObject("house", "red", "left", "small"),), "pink")
TWO = Scene((SceneObject("fish", "red", "left"), SceneObject("star", "green", "right")), "black")
CAREFUL = Population(np.array([[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.6]]), sharpness=20.0)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Image 0 has the wrong colour, image 1 the wrong background; then twice the same image under two names."""
    folder = tmp_path / "sample"
    (folder / "images").mkdir(parents=True)
    for name, scene in (("a", WRONG_COLOUR), ("b", WRONG_BACKGROUND), ("c", HOUSE)):
        draw(scene, 0).save(folder / "images" / f"{name}.png")
    draw(HOUSE, 1).save(folder / "images" / "d.png")
    prompt = phrase(HOUSE, np.random.default_rng(0))
    lines = [{"prompt": prompt, "image_0": f"images/{one}.png", "image_1": f"images/{other}.png"}
             for one, other in ("ab", "cd", "ca")]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "pairs.jsonl"


def test_members_prefer_by_their_own_taste():
    """Image 0 lacks the colour, image 1 the background: +-(0.6 - 0.1) of taste, times 20: sigmoid(-10), sigmoid(10)."""
    named = {"object": True, "colour": False, "position": True, "size": True, "background": True}
    gain = advantage(named, {**named, "colour": True, "background": False})
    assert gain.tolist() == [0, -1, 0, 0, 1]
    assert CAREFUL.preferences(gain).tolist() == pytest.approx([1 / (1 + math.exp(10)), 1 / (1 + math.exp(-10))])


def test_two_objects_share_their_kind_and_a_size_that_nobody_named_counts_for_neither():
    right = {f"{kind} {i}": True for kind in ("object", "colour", "position") for i in (1, 2)} | {"background": True}
    worse = {**right, "colour 2": False, "object 1": False, "object 2": False}
    assert dict(zip(KINDS, advantage(right, worse), strict=True)) == {
        "object": 1, "colour": 0.5, "position": 0, "size": 0, "background": 0}
    assert (advantage(worse, right) == -advantage(right, worse)).all()


def test_concentration_is_how_much_tastes_agree():
    """Dirichlet(c, ..., c) of 5: a weight's variance is (1/5)(4/5) / (5 c + 1); 1000 members know it to 10 %."""
    for concentration in (0.02, 1.0, 100.0):
        tastes = draw_population(concentration=concentration, sharpness=1, seed=3).tastes
        assert tastes.shape == (MEMBERS, 5) and tastes.sum(axis=1) == pytest.approx(np.ones(MEMBERS))
        assert tastes.mean(axis=0) == pytest.approx(np.full(5, 0.2), abs=0.05)
        assert tastes.var() == pytest.approx(0.16 / (5 * concentration + 1), rel=0.1)


def test_votes_follow_the_preferences_and_noise_flips_its_share():
    """A thousand votes of probability 0.9; flipped with 0.2: 0.9 * 0.8 + 0.1 * 0.2 = 0.74; errors are nested."""
    preferences = np.full(5000, 0.9)
    said = {noise: cast_votes(preferences, votes=5000, noise=noise, seed=1) for noise in (0.0, 0.2, 0.4, 1.0)}
    assert said[0.0].mean() == pytest.approx(0.9, abs=0.02) and said[0.2].mean() == pytest.approx(0.74, abs=0.02)
    assert (said[1.0] == ~said[0.0]).all()
    flipped = {noise: said[noise] != said[0.0] for noise in (0.2, 0.4)}
    assert not (flipped[0.2] & ~flipped[0.4]).any() and flipped[0.4].mean() == pytest.approx(0.4, abs=0.02)


def test_more_votes_add_members_and_ask_nobody_twice():
    """Member i prefers image 0 for certain where i is even: the votes tell who was asked."""
    preferences = (np.arange(10) % 2 == 0).astype(float)
    few, all_of_them = (cast_votes(preferences, votes=votes, noise=0, seed=5) for votes in (3, 10))
    assert few.tolist() == all_of_them[:3].tolist() and all_of_them.sum() == 5


def test_annotated_pairs_by_hand(pairs: Path):
    """Tastes are equal and opposed on the first pair: 1/2; equal verdicts: 1/2; a clean image against a wrong colour:
    (sigmoid(12) + sigmoid(2)) / 2."""
    lines = annotate(read_lines(pairs), pairs.parent, CAREFUL, votes=2, noise=0.0, seed=0)
    assert [line["p_true"] for line in lines] == pytest.approx(
        [0.5, 0.5, (1 / (1 + math.exp(-12)) + 1 / (1 + math.exp(-2))) / 2])
    assert lines[0]["vote_share_0"] == 0.5  # both were asked, and they disagree
    assert all(line["vote_share_0"] in (0, 0.5, 1) and line["label_0"] in (0, 1) for line in lines)


def test_pairs_have_their_own_annotators_and_the_seed_decides(pairs: Path):
    lines = read_lines(pairs)[:1] * 60
    population = draw_population(concentration=0.1, sharpness=20, seed=0)

    def votes(seed: int, noise: float = 0.0) -> list[float]:
        return [a["vote_share_0"] for a in annotate(lines, pairs.parent, population, votes=5, noise=noise, seed=seed)]

    first = votes(0)
    assert votes(0) == first != votes(1)
    assert len(set(first)) >= 4
    truth = annotate(lines[:1], pairs.parent, population, votes=1, noise=0.0, seed=0)[0]["p_true"]
    assert np.mean(first) == pytest.approx(truth, abs=0.09)  # 300 votes: 3 standard errors are 0.09
    changed = np.abs(np.array(votes(0, noise=0.1)) - first)
    assert 0 < np.mean(changed > 0) < 0.6  # 5 votes, a tenth flipped: 41 % of the pairs have one


def test_the_command_writes_a_pair_set_that_names_the_same_images(pairs: Path, tmp_path: Path, capsys):
    out = tmp_path / "people" / "noise-0.jsonl"
    main([str(pairs), str(out), "--votes", "5", "--concentration", "1", "--sharpness", "50", "--seed", "3"])
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["image_0"] for line in said] == [f"../sample/images/{name}.png" for name in "acc"]
    assert (said[2]["vote_share_0"], said[2]["label_0"]) == (1.0, 1)
    prepare_pairs(str(out), tmp_path / "pairs")
    opened = PairSet.open(tmp_path / "pairs")
    assert opened.vote_shares_0.tolist() == [line["vote_share_0"] for line in said]
    assert opened.human_labels.tolist() == [line["label_0"] for line in said]
    assert capsys.readouterr().out == describe(said) + "\n"


def test_the_summary_by_hand():
    """Pairs with a majority: 0.9 and 0.2; the first votes agree on one of them. Spread (0.3 + 0.1 + 0.5) / 3."""
    lines = [{"label_0": 1, "vote_share_0": 0.8, "p_true": 0.9}, {"label_0": 1, "vote_share_0": 0.4, "p_true": 0.2},
             {"label_0": 0, "vote_share_0": 0.0, "p_true": 0.5}]
    assert describe(lines) == ("3 pairs; label_0 agrees with the population's majority on 50.0% of the 2 with one; "
                               "mean |vote_share_0 - 1/2| 0.300")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--noise", "1.5"], "noise must lie in [0, 1], got 1.5"),
    (["--votes", "0"], "votes must lie in [1, 1000], got 0"),
    (["--concentration", "0"], "concentration must be a finite number > 0, got 0.0"),
])
def test_unusable_settings_are_one_line(pairs: Path, tmp_path: Path, capsys, arguments: list[str], message: str):
    with pytest.raises(SystemExit) as stopped:
        main([str(pairs), str(tmp_path / "out.jsonl"), *arguments])
    assert stopped.value.code == 2 and capsys.readouterr().err.endswith(f"error: {message}\n")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("text", "message"), [
    ("{", "line 1 is not JSON (Expecting property name"), ("5", "line 1 lacks prompt, image_0, image_1"),
    ('{"prompt": 1, "image_0": "a", "image_1": "b"}', "line 1: prompt, image_0, image_1 must be text"),
    ("", "holds no line; correct the path"),
])
def test_unusable_files_are_one_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(DataError) as caught:
        read_lines(tmp_path / "p.jsonl")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"^.*no.jsonl cannot be read \(No such file or directory\); correct the path$"):
        read_lines(tmp_path / "no.jsonl")


def test_no_more_votes_than_members(pairs: Path):
    with pytest.raises(ConfigError, match=r"^votes must lie in \[1, 2\], got 3$"):
        annotate(read_lines(pairs), pairs.parent, CAREFUL, votes=3, noise=0, seed=0)
