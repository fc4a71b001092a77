"""Diffusion-KTO: utilities of single images against a reference point (METHODS 8, 18.2)."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from smpo.core.errors import ConfigError
from smpo.core.records import PairErrors
from smpo.maths.utility import UTILITIES, implicit_reward, kto_logit, kto_loss, reference_point
from tests.maths import references
from tests.maths.references import doubles, draw

SHOWN = doubles(1, 0, 1, 1, 0, 1)


def loss_of(rows: Tensor, shown: Tensor, *, beta: float = 1000.0, utility: str = "kahneman-tversky") -> Tensor:
    """From errors (policy, reference) to losses, the batch being the whole step."""
    reward = implicit_reward(PairErrors(policy_w=rows[0], reference_w=rows[1]))
    return kto_loss(kto_logit(reward, shown, reference_point(reward), beta=beta), utility=utility)


@pytest.mark.parametrize("utility", UTILITIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_independent_formula(utility: str, seed: int) -> None:
    rows = 0.2 + 0.001 * draw(2, 6, seed=seed)
    expected = references.kto_loss(rows.numpy(), SHOWN.numpy() == 1, beta=1500, utility=utility)
    np.testing.assert_allclose(loss_of(rows, SHOWN, beta=1500, utility=utility), expected, rtol=1e-9)


def test_by_hand() -> None:
    """g = 0.003, 0.001, -0.001: k = 0.001. Winner, loser, winner at beta 1000: x = 2, 0, -2 (no 1/2)."""
    rows = torch.stack([doubles(0.197, 0.199, 0.201), doubles(0.2, 0.2, 0.2)])
    reward = implicit_reward(PairErrors(policy_w=rows[0], reference_w=rows[1]))
    k = reference_point(reward)
    assert k.item() == pytest.approx(0.001, abs=1e-15) and k.shape == ()
    logit = kto_logit(reward, doubles(1, 0, 1), k, beta=1000)
    assert logit.tolist() == pytest.approx([2, 0, -2], abs=1e-11)
    h = 1 / (1 + math.exp(-2))
    assert kto_loss(logit, utility="kahneman-tversky").tolist() == pytest.approx([1 - h, 0.5, h])
    low, high = math.log(1 - h), math.log(h)
    assert kto_loss(logit, utility="loss-averse").tolist() == pytest.approx([-high, math.log(2), -low])
    assert kto_loss(logit, utility="risk-seeking").tolist() == pytest.approx([low, -math.log(2), high])


def test_the_reference_point_is_never_negative_and_carries_no_gradient() -> None:
    assert reference_point(doubles(-3, 1)).item() == 0 and reference_point(doubles(3, -1)).item() == 1
    assert not reference_point(doubles(3, -1).requires_grad_()).requires_grad


def test_the_gradient_takes_the_reference_point_as_given() -> None:
    """Were k part of the graph, each image's gradient would hold the others' losses."""
    rows = 0.2 + 0.001 * draw(2, 6)
    k = reference_point(implicit_reward(PairErrors(policy_w=rows[0], reference_w=rows[1])))

    def gradient(fixed: bool) -> Tensor:
        policy = rows[0].clone().requires_grad_()
        reward = implicit_reward(PairErrors(policy_w=policy, reference_w=rows[1]))
        point = k if fixed else reference_point(reward)
        return torch.autograd.grad(kto_loss(kto_logit(reward, SHOWN, point, beta=900), utility=UTILITIES[0]).sum(),
                                   policy)[0]

    assert torch.equal(gradient(fixed=True), gradient(fixed=False))


@pytest.mark.parametrize(("utility", "expected"), [
    ("kahneman-tversky", 0.5), ("loss-averse", math.log(2)), ("risk-seeking", -math.log(2)),
])
def test_at_the_start(utility: str, expected: float) -> None:
    """Policy = reference: g = k = 0 (METHODS 18.2.1)."""
    rows = draw(1, 6).abs().expand(2, 6)
    assert loss_of(rows, SHOWN, utility=utility).tolist() == pytest.approx([expected] * 6)


@pytest.mark.parametrize("utility", UTILITIES)
def test_shown_winners_errors_are_pushed_down_and_losers_up(utility: str) -> None:
    """METHODS 18.2.2."""
    policy = (0.2 + 1e-4 * draw(6)).requires_grad_()
    loss = loss_of(torch.stack([policy, torch.full((6,), 0.2).double()]), SHOWN, utility=utility)
    (slope,) = torch.autograd.grad(loss.sum(), policy)
    assert torch.equal(slope > 0, SHOWN == 1) and torch.equal(slope < 0, SHOWN == 0)


@pytest.mark.parametrize("utility", UTILITIES)
def test_turning_image_and_reward_about_the_point_changes_nothing(utility: str) -> None:
    """The counterpart of swapping a pair: desirable above the point is undesirable below it."""
    reward, k = 1e-3 * draw(6), torch.tensor(2e-4)
    ours = kto_loss(kto_logit(reward, SHOWN, k, beta=1000), utility=utility)
    theirs = kto_loss(kto_logit(2 * k - reward, 1 - SHOWN, k, beta=1000), utility=utility)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_the_point_joins_the_images_of_a_batch_but_nothing_else_does() -> None:
    """METHODS 18.2.5 does not hold: alone, an image of positive reward is its own reference point. Given k it does."""
    rows = 0.2 + 0.001 * draw(2, 6)
    alone = torch.cat([loss_of(rows[:, i:i + 1], SHOWN[i:i + 1]) for i in range(6)])
    assert not torch.allclose(loss_of(rows, SHOWN), alone, rtol=1e-3)
    reward = implicit_reward(PairErrors(policy_w=rows[0], reference_w=rows[1]))
    k = reference_point(reward)
    given = [kto_logit(reward[i:i + 1], SHOWN[i:i + 1], k, beta=1000) for i in range(6)]
    assert torch.equal(kto_loss(torch.cat(given), utility=UTILITIES[0]), loss_of(rows, SHOWN))


@pytest.mark.parametrize("utility", UTILITIES)
def test_gradcheck_and_far_tails(utility: str) -> None:
    assert torch.autograd.gradcheck(lambda x: kto_loss(x, utility=utility), (draw(5).requires_grad_(),))
    for far in (1e4, -1e4):
        at = torch.tensor([far], requires_grad=True)
        value = kto_loss(at, utility=utility)
        assert value.isfinite().all() and torch.autograd.grad(value.sum(), at)[0].isfinite().all()


def test_unusable_input() -> None:
    with pytest.raises(ValueError, match="implicit_reward needs errors of policy and reference, got no reference's"):
        implicit_reward(PairErrors(policy_w=torch.ones(2)))
    with pytest.raises(ValueError, match=r"reward must have shape \(B,\), got \(2, 1\)"):
        kto_logit(torch.ones(2, 1), torch.ones(2), torch.zeros(()), beta=1)
    with pytest.raises(ConfigError, match="beta must be a finite number > 0, got 0"):
        kto_logit(torch.ones(2), torch.ones(2), torch.zeros(()), beta=0)
    with pytest.raises(ConfigError, match="unknown objective.utility 'loss-adverse'; .* Did you mean 'loss-averse'?"):
        kto_loss(torch.ones(2), utility="loss-adverse")
