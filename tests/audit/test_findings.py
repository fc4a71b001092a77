"""The parts of an audit: agreement, contradictions, signal and repeated images, by hand and against brute force."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance

from smpo.audit.human_labels import agreement, contradictions
from smpo.audit.perceptual import Descriptors, describe_image, near, near_clusters
from smpo.audit.training_signal import training_signal
from smpo.maths.preference import smpo_loss
from tests.data.pictures import encoded


def test_agreement_by_hand() -> None:
    """Pairs: agree, disagree, score tie, human tie, unlabelled, agree. Two of three judged ones."""
    found = agreement(
        "s", np.array([2.0, 2, 1, 5, 5, 0]), np.array([1.0, 1, 1, 1, 1, 3]), np.array([1, 0, 1, 0.5, np.nan, 0]),
        np.arange(6),
    )
    assert (found.pairs, found.score_ties, found.by_gap) == (3, 1, ())
    assert found.agreement.value == pytest.approx(2 / 3)
    none = agreement("s", np.ones(2), np.ones(2), np.array([1.0, 0.0]), np.arange(2))
    assert (none.pairs, none.score_ties, none.agreement) == (0, 2, None)


def test_agreement_rises_with_the_gap() -> None:
    """People agree with probability sigmoid(gap): the tenths climb, their counts add up, sides do not matter."""
    rng = np.random.default_rng(0)
    score_0, score_1 = rng.normal(size=(2, 3000)) * 2
    human = (rng.random(3000) < 1 / (1 + np.exp(score_1 - score_0))).astype(float)
    prompts = rng.integers(0, 500, 3000)
    found = agreement("s", score_0, score_1, human, prompts)
    assert [b.pairs for b in found.by_gap] == [300] * 10
    assert found.by_gap[0].agreement.value < 0.62 and found.by_gap[-1].agreement.value > 0.95
    assert all(b.high <= c.low for b, c in zip(found.by_gap, found.by_gap[1:], strict=False))
    assert np.mean([b.agreement.value for b in found.by_gap]) == pytest.approx(found.agreement.value)
    assert agreement("s", score_1, score_0, 1 - human, prompts) == found
    order = rng.permutation(3000)
    again = agreement("s", score_0[order], score_1[order], human[order], prompts[order])
    assert again.agreement.low == pytest.approx(found.agreement.low)


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
    found = contradictions(list("abcdefghijk"), images, human, prompts)
    assert (found.repeated, found.reversed, found.tied_and_decided) == (2, 1, 1)
    assert (found.cyclic_prompts, found.cyclic_pairs, found.prompts, found.judged_prompts) == (1, 3, 2, 4)
    assert found.examples == (("a", "b"), ("d", "e", "f"))


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
    found = contradictions([""] * 200, images, human, np.zeros(200, dtype=int))
    assert (found.reversed, found.cyclic_prompts, found.prompts) == (0, 0, 0) and found.repeated > 0


def test_signal_by_hand() -> None:
    """p = 0.5 nine times and 1.0 once: the last tenth carries all. p = 0.4 pushes towards the loser."""
    found = training_signal(np.array([0.5] * 9 + [1.0]), gamma=10)
    assert [d.weight_share for d in found.deciles] == [0.0] * 9 + [1.0]
    assert (found.deciles[-1].high, found.effective_pairs, found.negative) == (10, 1, 0)
    assert found.p_quantiles["0.5"] == 0.5 and found.p_quantiles["1.0"] == 1.0
    even = training_signal(np.full(20, 0.75), gamma=2)
    assert [d.weight_share for d in even.deciles] == pytest.approx([0.1] * 10) and even.effective_pairs == 20
    assert [d.late_share for d in even.deciles] == pytest.approx([0.1] * 10)
    mixed = training_signal(np.array([0.4, 0.8]), gamma=1)  # |w| = 0.2 and 0.6; sigmoid(-2/3) = .33924, (-2) = .11920
    assert mixed.negative == 1 and [d.weight_share for d in mixed.deciles] == pytest.approx([0.25, 0.75])
    assert [d.square_share for d in mixed.deciles] == pytest.approx([0.1, 0.9])
    late = 0.2 * 0.33924 / (0.2 * 0.33924 + 0.6 * 0.11920)
    assert mixed.deciles[0].late_share == pytest.approx(late, abs=1e-4)
    assert mixed.effective_pairs == pytest.approx(0.8**2 / 0.4)
    nothing = training_signal(np.full(5, 0.5), gamma=1)
    assert nothing.effective_pairs == 0 and {d.weight_share for d in nothing.deciles} == {0.0}


def test_shares_do_not_depend_on_gamma_or_order() -> None:
    p = np.random.default_rng(3).uniform(0.4, 1, 1001)
    one, ten = training_signal(p, gamma=1), training_signal(p[::-1], gamma=10)
    for d, e in zip(one.deciles, ten.deciles, strict=True):
        assert (d.weight_share, d.late_share) == pytest.approx((e.weight_share, e.late_share))
    assert sum(d.pairs for d in one.deciles) == 1001 and sum(d.late_share for d in one.deciles) == pytest.approx(1)


def test_the_weights_are_the_gradients_of_the_loss() -> None:
    """late_share is what autograd says of smpo_loss at the margin where the heaviest pair's logit is 2."""
    p = torch.tensor([0.55, 0.7, 0.95], dtype=torch.float64)
    for margin_logit, key in ((0.0, "weight_share"), (2.0, "late_share")):
        margin = torch.full((3,), margin_logit / (0.5 * 2000 * 10 * 0.9), dtype=torch.float64, requires_grad=True)
        smpo_loss(margin, p, beta=2000, gamma=10).sum().backward()
        shares = margin.grad.abs() / margin.grad.abs().sum()
        found = training_signal(p.numpy(), gamma=10).deciles
        assert [getattr(d, key) for d in found] == pytest.approx(shares.tolist())


def scene(seed: int, size: int = 256) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, size=(6, 6, 3), dtype=np.uint8)).resize((size, size), 3)
    ImageDraw.Draw(image).ellipse(tuple(size * np.sort(rng.random(4)) * 0.9), fill=tuple(rng.integers(0, 256, 3)))
    return image


def descriptors(images: list[Image.Image]) -> Descriptors:
    found = [describe_image(image) for image in images]
    return Descriptors(np.array([h for h, _ in found], dtype=np.uint64), np.stack([c for _, c in found]))


@pytest.mark.parametrize("change", [
    lambda image: image.resize((512, 512), Image.Resampling.BICUBIC),
    lambda image: image.resize((100, 100), Image.Resampling.LANCZOS),
    lambda image: ImageEnhance.Brightness(image).enhance(1.05),
    lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=60))),
])
def test_changed_copies_are_near_and_other_images_are_not(change) -> None:
    originals = [scene(seed) for seed in range(30)]
    a, b = descriptors(originals), descriptors([change(image) for image in originals])
    assert near(a, b).mean() >= 0.9
    for shift in range(1, 30):
        assert not near(a, Descriptors(np.roll(a.hashes, shift), np.roll(a.colours, shift, axis=0))).any()


def test_colour_tells_apart_what_grey_cannot() -> None:
    """Two flat images have no structure at all; a scene and its colour-swapped twin have the same."""
    flat = descriptors([Image.new("RGB", (64, 64), c) for c in ("red", "green")])
    assert flat.hashes.tolist() == [0, 0] and not near(*(Descriptors(flat.hashes[i:i + 1], flat.colours[i:i + 1])
                                                         for i in (0, 1))).any()


def test_clusters_equal_brute_force() -> None:
    """Random hashes with planted neighbours up to six bits away, over every stretch of the hash."""
    rng = np.random.default_rng(4)
    centres = rng.integers(0, 2**63, size=80, dtype=np.uint64)
    hashes = []
    for centre in centres:
        for _ in range(rng.integers(1, 5)):
            flips = rng.choice(63, rng.integers(0, 7), replace=False)
            hashes.append(int(centre) ^ int(sum(1 << int(f) for f in flips)))
    images = Descriptors(np.array(hashes, dtype=np.uint64), rng.integers(0, 20, (len(hashes), 48), dtype=np.uint8))
    labels = near_clusters(images)
    n = len(images)
    bits = np.bitwise_count(images.hashes[:, None] ^ images.hashes)
    linked = bits <= 4
    for _ in range(8):
        linked = (linked.astype(int) @ linked.astype(int)) > 0
    np.testing.assert_array_equal(labels[:, None] == labels, linked)
    assert 80 <= len(set(labels.tolist())) < n
    assert all(labels[label] == label <= i for i, label in enumerate(labels.tolist()))


def test_many_equal_images_stay_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 copies would be two million edges: they are joined on the way."""
    monkeypatch.setattr("smpo.audit.perceptual.EDGES_AT_ONCE", 5000)
    copies = Descriptors(np.full(2000, 7, dtype=np.uint64), np.zeros((2000, 48), dtype=np.uint8))
    assert near_clusters(copies).tolist() == [0] * 2000


def test_four_flips_far_apart_are_still_near() -> None:
    """One flip in every quarter of the hash: only a fifth stretch is left untouched, wherever the flips fall."""
    rng = np.random.default_rng(5)
    flips = [sorted(int(16 * quarter + rng.integers(0, 15)) for quarter in range(4)) for _ in range(200)]
    for places in flips:
        hashes = np.array([0, sum(1 << place for place in places)], dtype=np.uint64)
        assert near_clusters(Descriptors(hashes, np.zeros((2, 48), dtype=np.uint8))).tolist() == [0, 0]
