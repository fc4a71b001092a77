"""IPO, conservative DPO, Linear-DPO and MaPO: METHODS 9, 10, 18.2."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from smpo.core.errors import ConfigError
from smpo.core.records import PairErrors
from smpo.maths.preference import (
    cdpo_loss,
    dpo_loss,
    implicit_margin,
    ipo_loss,
    linear_loss,
    linear_weight,
    mapo_loss,
    mapo_margin,
    mapo_ratio,
)
from tests.maths import references
from tests.maths.references import doubles, draw
from tests.maths.test_preference import pair_errors, some_p

Loss = Callable[..., Tensor]
SOFT = {"ipo": ipo_loss, "cdpo": cdpo_loss}
MAPO = {"beta": 0.1, "temperature": 1000.0, "snr": 0.5}


@pytest.fixture(params=SOFT)
def loss(request: pytest.FixtureRequest) -> Loss:
    return SOFT[request.param]


# --- losses of a margin and a soft label ---

@pytest.mark.parametrize("name", SOFT)
def test_equals_the_independent_formula(name: str) -> None:
    rows, p = 0.2 + 0.001 * draw(4, 6), some_p(6)
    expected = getattr(references, f"{name}_loss")(rows.numpy(), p.numpy(), beta=3000)
    np.testing.assert_allclose(SOFT[name](implicit_margin(pair_errors(*rows)), p, beta=3000), expected, rtol=1e-9)


@pytest.mark.parametrize(("name", "p", "expected"), [
    ("ipo", 1.0, 0.25), ("ipo", 0.75, 0.0), ("ipo", 0.0, 2.25),
    ("cdpo", 1.0, math.log1p(math.exp(-1))), ("cdpo", 0.75, math.log1p(math.exp(-1)) + 0.25),
])
def test_by_hand(name: str, p: float, expected: float) -> None:
    """margin 0.01, beta 200: u = 1. IPO (1 - (p - 1/2))^2; at p = 0.75 margin and label are 0.0025: u = 1/4.

    cDPO: -log sigmoid(-1) = 1 - log sigmoid(1), so the loss is log(1 + 1/e) + (1 - p).
    """
    margin = doubles(0.0025 if (name, p) == ("ipo", 0.75) else 0.01)
    assert SOFT[name](margin, doubles(p), beta=200).item() == pytest.approx(expected, abs=1e-14)


def test_at_the_start(loss: Loss) -> None:
    """Equal policy and reference: IPO (p - 1/2)^2, 1/4 for hard labels; the others log 2 (METHODS 18.2.1)."""
    p = doubles(1.0, 0.8, 0.5, 0.0)
    expected = (p - 0.5).square() if loss is ipo_loss else torch.full_like(p, math.log(2))
    torch.testing.assert_close(loss(torch.zeros(4).double(), p, beta=2000), expected, rtol=0, atol=1e-15)


def test_cdpo_with_certain_labels_is_dpo() -> None:
    margin = 0.002 * draw(5)
    assert torch.equal(cdpo_loss(margin, torch.ones(5).double(), beta=2000), dpo_loss(margin, beta=2000))


# --- Linear-DPO, as its code has it ---

@pytest.mark.parametrize(("d", "slope"), [
    (0.0, 0.5), (0.01, 0.7), (-0.01, 0.3), (0.02, 0.9), (0.03, 0.999), (-0.03, 0.001),
])
def test_the_slope_of_linear_by_hand(d: float, slope: float) -> None:
    """clip(0.5 + 0.2 beta d, eta, 1 - eta), beta = 100, eta = 1e-3: 0.2 100 0.01 = 0.2, 0.5 + 0.6 is cut at 0.999."""
    assert linear_weight(doubles(-d), beta=100, eta=1e-3).item() == pytest.approx(slope, abs=1e-12)


def test_the_gradient_of_linear_is_its_slope_and_no_more() -> None:
    """L_w = .3, L_l = .2, ref .29, .2: d = .01, slope 0.7; loss 0.7 0.1; dL/dL_w = 0.7, dL/dL_l = -0.7, ref none."""
    rows = [doubles(value).requires_grad_() for value in (0.3, 0.2, 0.29, 0.2)]
    loss = linear_loss(pair_errors(*rows), torch.ones(1).double(), beta=100, eta=1e-3)
    slopes = torch.autograd.grad(loss.sum(), rows, allow_unused=True)
    assert loss.item() == pytest.approx(0.07)
    assert [None if slope is None else slope.item() for slope in slopes] == pytest.approx([0.7, -0.7, None, None])


def test_linear_equals_the_published_lines_and_a_turned_pair_with_its_label() -> None:
    rows, p = 0.2 + 0.01 * draw(4, 6), some_p(6)
    found = linear_loss(pair_errors(*rows), p, beta=100, eta=1e-3)
    expected = references.linear_loss(rows.numpy(), p.numpy(), beta=100)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    turned = linear_loss(pair_errors(*rows[[1, 0, 3, 2]]), 1 - p, beta=100, eta=1e-3)
    torch.testing.assert_close(turned, found, rtol=1e-12, atol=1e-15)


def test_linear_without_a_trained_policy_has_half_the_slope_and_soft_labels_p_less_a_half() -> None:
    at = torch.tensor([0.3, 0.3]).double().requires_grad_()
    other = doubles(0.2, 0.2)
    loss = linear_loss(pair_errors(at, other, at.detach(), other), doubles(1.0, 0.75), beta=100, eta=0.0)
    (slope,) = torch.autograd.grad(loss.sum(), at)
    assert slope.tolist() == pytest.approx([0.5, 0.25])


@pytest.mark.parametrize("margin", [1e4, -1e4])
def test_far_margins_leave_linear_finite_and_cut(margin: float) -> None:
    assert linear_weight(doubles(margin), beta=2000, eta=0.01).item() == pytest.approx(0.01 if margin > 0 else 0.99)


def test_linear_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="p_winner must have shape"):
        linear_loss(pair_errors(*draw(4, 3)), torch.ones(3, 1).double(), beta=100, eta=0.0)


def test_ipo_has_the_minimiser_of_diffusers() -> None:
    """margin = 1 / beta = 1 / (2 beta_d): zero loss and zero gradient there."""
    margin = doubles(1 / 5000).requires_grad_()
    loss = ipo_loss(margin, doubles(1.0), beta=5000)
    assert loss.item() == pytest.approx(0, abs=1e-30)
    assert torch.autograd.grad(loss, margin)[0].item() == pytest.approx(0, abs=1e-10)


def test_cdpo_is_least_where_the_model_believes_the_label() -> None:
    """sigmoid(beta / 2 margin) = p; the minimum is the entropy of the label."""
    p = doubles(0.9, 0.7, 0.2)
    margin = (torch.logit(p) * 2 / 300).requires_grad_()
    loss = cdpo_loss(margin, p, beta=300)
    assert torch.autograd.grad(loss.sum(), margin)[0].abs().max() < 1e-12
    torch.testing.assert_close(loss.detach(), torch.special.entr(p) + torch.special.entr(1 - p))


def test_winners_error_is_pushed_down_and_losers_up(loss: Loss) -> None:
    """METHODS 18.2.2; IPO while the margin is below its aim."""
    rows = [(0.2 + 1e-6 * draw(3, seed=seed)).requires_grad_() for seed in range(2)]
    errors = pair_errors(*rows, torch.full((3,), 0.2).double(), torch.full((3,), 0.2).double())
    down, up = torch.autograd.grad(loss(implicit_margin(errors), torch.ones(3).double(), beta=2000).sum(), rows)
    assert (down > 0).all() and (up < 0).all()


def test_swapping_the_pair_and_its_label_changes_nothing(loss: Loss) -> None:
    margin, p = 1e-3 * draw(6), some_p(6)
    torch.testing.assert_close(loss(-margin, 1 - p, beta=2000), loss(margin, p, beta=2000), rtol=1e-12, atol=1e-15)


def test_even_odds_give_no_gradient_at_the_start(loss: Loss) -> None:
    """METHODS 18.2.3. Later on they pull the margin of such a pair back to zero."""
    at = torch.zeros(1).double().requires_grad_()
    assert not torch.autograd.grad(loss(at, doubles(0.5), beta=2000).sum(), at)[0].any()
    away = doubles(1e-3).requires_grad_()
    (pull,) = torch.autograd.grad(loss(away, doubles(0.5), beta=2000).sum(), away)
    assert pull.item() > 0


def test_batch_equals_its_rows_alone(loss: Loss) -> None:
    margin, p = 1e-3 * draw(6), some_p(6)
    alone = [loss(margin[i:i + 1], p[i:i + 1], beta=2000) for i in range(6)]
    torch.testing.assert_close(loss(margin, p, beta=2000), torch.cat(alone), rtol=1e-14, atol=0)


def test_gradcheck(loss: Loss) -> None:
    margin, p = (0.01 * draw(5)).requires_grad_(), some_p(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda margin, p: loss(margin, p, beta=50), (margin, p))


@pytest.mark.parametrize("margin", [1e4, -1e4])
def test_far_tails_stay_finite(loss: Loss, margin: float) -> None:
    at = torch.tensor([margin], requires_grad=True)
    value = loss(at, torch.tensor([0.9]), beta=2)
    assert value.isfinite().all() and torch.autograd.grad(value.sum(), at)[0].isfinite().all()


def test_shapes_and_beta_are_checked(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"margin must have shape \(B,\), got \(2, 1\)"):
        loss(torch.ones(2, 1), torch.ones(2), beta=1)
    with pytest.raises(ValueError, match=r"shapes must be equal, got margin \(2,\), (p_winner|weight) \(1,\)"):
        loss(torch.ones(2), torch.ones(1), beta=1)
    with pytest.raises(ConfigError, match="beta must be a finite number > 0, got -1"):
        loss(torch.ones(2), torch.ones(2), beta=-1)


# --- MaPO ---

@pytest.mark.parametrize(("error", "expected"), [
    (0.0, 1.0), (0.01, 0.997502), (0.1, 0.975208), (0.3, 0.926874), (1.0, 0.770747),
])
def test_mapo_ratio_by_the_table_of_methods(error: float, expected: float) -> None:
    """METHODS 18.2.8, s = 0.5."""
    assert mapo_ratio(doubles(error), snr=0.5).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mapo_ratio_is_smooth_at_zero_and_finite_far_out(dtype: torch.dtype) -> None:
    """z / (e^z - 1) = 1 - z/2 + z^2/12 - ...: value, slope -s/2 at 0, and no seam at z = 1e-4."""
    errors = torch.tensor([0.0, 1e-8, 1.9e-4, 2.1e-4, 1e-2, 1e4], dtype=dtype, requires_grad=True)
    value = mapo_ratio(errors, snr=0.5)
    (slope,) = torch.autograd.grad(value.sum(), errors)
    z = 0.5 * errors.detach()[:5]
    torch.testing.assert_close(value.detach()[:5], 1 - z / 2 + z**2 / 12, rtol=0, atol=1e-7)
    torch.testing.assert_close(slope[:5], -0.25 + z / 12, rtol=0, atol=2e-3 if dtype == torch.float32 else 1e-5)
    assert value[5] == 0 and slope[5] == 0


def test_mapo_equals_the_transcribed_formula() -> None:
    l_w, l_l = 0.2 + 0.001 * draw(2, 6)
    expected = references.mapo_loss(l_w.numpy(), l_l.numpy(), **MAPO)
    np.testing.assert_allclose(mapo_loss(PairErrors(l_w, l_l), **MAPO), expected, rtol=1e-9)


def test_mapo_of_equal_errors_is_the_error_plus_a_tenth_of_log_two() -> None:
    """METHODS 18.2.1."""
    errors = doubles(0.0, 0.1, 0.5)
    torch.testing.assert_close(mapo_loss(PairErrors(errors, errors), **MAPO), errors + 0.1 * math.log(2))


def test_mapo_pushes_the_winners_error_down_and_the_losers_up() -> None:
    rows = [(0.2 + 0.01 * draw(4, seed=seed)).requires_grad_() for seed in range(2)]
    down, up = torch.autograd.grad(mapo_loss(PairErrors(*rows), **MAPO).sum(), rows)
    assert (down > 1).all() and (up < 0).all()  # 1 comes from the winner's own error
    assert torch.autograd.gradcheck(lambda w, loser: mapo_loss(PairErrors(w, loser), **MAPO), rows)


def test_mapo_of_a_batch_equals_its_rows_alone() -> None:
    l_w, l_l = 0.2 + 0.001 * draw(2, 6)
    alone = [mapo_loss(PairErrors(l_w[i:i + 1], l_l[i:i + 1]), **MAPO) for i in range(6)]
    torch.testing.assert_close(mapo_loss(PairErrors(l_w, l_l), **MAPO), torch.cat(alone), rtol=1e-13, atol=0)


def test_mapo_swaps_sign_with_the_pair() -> None:
    l_w, l_l = 0.2 + 0.001 * draw(2, 6)
    assert torch.equal(mapo_margin(PairErrors(l_w, l_l), snr=0.5), -mapo_margin(PairErrors(l_l, l_w), snr=0.5))


def test_mapo_needs_the_loser_and_positive_settings() -> None:
    with pytest.raises(ValueError, match="mapo_margin needs winner and loser errors of the policy, got no loser's"):
        mapo_margin(PairErrors(torch.ones(2)), snr=0.5)
    with pytest.raises(ValueError, match=r"l must have shape \(B,\), got \(2, 1\)"):
        mapo_margin(PairErrors(torch.ones(2), torch.ones(2, 1)), snr=0.5)
    for name in MAPO:
        with pytest.raises(ConfigError, match=f"{name} must be a finite number > 0, got 0"):
            mapo_loss(PairErrors(torch.ones(2), torch.ones(2)), **{**MAPO, name: 0.0})
