"""The distribution of the training signal: by hand, and against gradients of the loss."""

import numpy as np
import pytest
import torch

from smpo.audit.training_signal import training_signal
from smpo.maths.preference import smpo_loss


def test_signal_by_hand() -> None:
    """p = 0.5 nine times and 1.0 once: the last tenth carries all. p = 0.4 pushes towards the loser."""
    result = training_signal(np.array([0.5] * 9 + [1.0]), gamma=10)
    assert [d.weight_share for d in result.deciles] == [0.0] * 9 + [1.0]
    assert (result.deciles[-1].high, result.effective_pairs, result.negative) == (10, 1, 0)
    assert result.p_quantiles["0.5"] == 0.5 and result.p_quantiles["1.0"] == 1.0
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
        result = training_signal(p.numpy(), gamma=10).deciles
        assert [getattr(d, key) for d in result] == pytest.approx(shares.tolist())
