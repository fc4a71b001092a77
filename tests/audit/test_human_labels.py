"""Agreement with people and contradictions, by hand."""

import numpy as np
import pytest

from smpo.audit.human_labels import agreement, contradictions


def test_agreement_by_hand() -> None:
    """Pairs: agree, disagree, score tie, human tie, unlabelled, agree. Two of three judged ones."""
    result = agreement(
        "s", np.array([2.0, 2, 1, 5, 5, 0]), np.array([1.0, 1, 1, 1, 1, 3]), np.array([1, 0, 1, 0.5, np.nan, 0]),
        np.arange(6),
    )
    assert (result.pairs, result.score_ties, result.by_gap) == (3, 1, ())
    assert result.agreement.value == pytest.approx(2 / 3)
    none = agreement("s", np.ones(2), np.ones(2), np.array([1.0, 0.0]), np.arange(2))
    assert (none.pairs, none.score_ties, none.agreement) == (0, 2, None)


def test_agreement_rises_with_the_gap() -> None:
    """People agree with probability sigmoid(gap): the tenths climb, their counts add up, sides do not matter."""
    rng = np.random.default_rng(0)
    score_0, score_1 = rng.normal(size=(2, 3000)) * 2
    human = (rng.random(3000) < 1 / (1 + np.exp(score_1 - score_0))).astype(float)
    prompts = rng.integers(0, 500, 3000)
    result = agreement("s", score_0, score_1, human, prompts)
    assert [b.pairs for b in result.by_gap] == [300] * 10
    assert result.by_gap[0].agreement.value < 0.62 and result.by_gap[-1].agreement.value > 0.95
    assert all(b.high <= c.low for b, c in zip(result.by_gap, result.by_gap[1:], strict=False))
    assert np.mean([b.agreement.value for b in result.by_gap]) == pytest.approx(result.agreement.value)
    assert agreement("s", score_1, score_0, 1 - human, prompts) == result
    order = rng.permutation(3000)
    again = agreement("s", score_0[order], score_1[order], human[order], prompts[order])
    assert again.agreement.low == pytest.approx(result.agreement.low)


def test_pairs_of_one_prompt_are_not_independent() -> None:
    same = agreement("s", np.arange(1, 41.0), np.zeros(40), np.repeat([1.0, 0.0], 20), np.repeat([0, 1, 2, 3], 10))
    apart = agreement("s", np.arange(1, 41.0), np.zeros(40), np.repeat([1.0, 0.0], 20), np.arange(40))
    assert same.agreement.high - same.agreement.low > 2 * (apart.agreement.high - apart.agreement.low)


def test_contradictions_by_hand() -> None:
    """Prompt 0: images 1 > 2, 2 > 1 (reversed), and a tie of the same. Prompt 1: 1 > 2 > 3 > 1. Prompt 2: 1 > 2 > 3.

    Prompt 3: 2 > 1, which contradicts nothing, for another prompt is another question. Pair j is unlabelled.
    """
    prompts = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3])
    images = np.array([[1, 2], [1, 2], [2, 1], [1, 2], [2, 3], [1, 3], [1, 2], [3, 2], [1, 3], [2, 1], [1, 2]])
    human = np.array([1, 0, 0.5, 1, 1, 0, 1, 0, 1, 1, np.nan])
    result = contradictions(list("abcdefghijk"), images, human, prompts)
    assert (result.repeated, result.reversed, result.tied_and_decided) == (2, 1, 1)
    assert (result.cyclic_prompts, result.cyclic_pairs, result.prompts, result.judged_prompts) == (1, 3, 2, 4)
    assert result.examples == (("a", "b"), ("d", "e", "f"))


def test_contradictions_do_not_depend_on_order_or_sides() -> None:
    rng = np.random.default_rng(1)
    images = np.array([rng.choice(5, 2, replace=False) for _ in range(300)])
    human, prompts = rng.choice([0.0, 0.5, 1.0], 300), rng.integers(0, 20, 300)
    ids = [str(i) for i in range(300)]
    first = contradictions(ids, images, human, prompts, examples=0)
    assert first.reversed > 0 and first.cyclic_prompts > 0
    order = rng.permutation(300)
    assert contradictions(ids, images[order], human[order], prompts[order], examples=0) == first
    assert contradictions(ids, images[:, ::-1], 1 - human, prompts, examples=0) == first


def test_one_order_has_no_contradiction() -> None:
    rng = np.random.default_rng(2)
    images = np.array([rng.choice(9, 2, replace=False) for _ in range(200)])
    human = (images[:, 0] > images[:, 1]).astype(float)
    result = contradictions([""] * 200, images, human, np.zeros(200, dtype=int))
    assert (result.reversed, result.cyclic_prompts, result.prompts) == (0, 0, 0) and result.repeated > 0
