"""The losses over the implicit margin (Eq. 9, 15, 16): METHODS 1.2, 18.2."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from smpo.core.errors import ConfigError
from smpo.core.records import PairErrors
from smpo.maths.preference import dpo_loss, implicit_margin, mean_squared_error, preference_logit, smpo_loss
from tests.maths import references
from tests.maths.references import doubles, draw


def pair_errors(*rows: Tensor) -> PairErrors:
    policy_w, policy_l, reference_w, reference_l = rows
    return PairErrors(policy_w=policy_w, policy_l=policy_l, reference_w=reference_w, reference_l=reference_l)


def some_p(n: int) -> Tensor:
    return torch.sigmoid(draw(n, seed=7))


# --- errors and margin ---

def test_mean_squared_error_by_hand() -> None:
    """Rows (1, 2; 3, 4) - 0 and (0, 0; 0, 2) - 0: means 30 / 4 and 4 / 4: a mean, not a sum (D9)."""
    prediction = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 2.0]]])
    assert mean_squared_error(prediction, torch.zeros(2, 2, 2)).tolist() == [7.5, 1.0]


def test_half_precision_predictions_give_float32_errors() -> None:
    """METHODS 1.7: an error near 0.3 has a spacing of 2.4e-4 in fp16; the mean of rounded squares would show it."""
    prediction, target = draw(3, 4, 8, 8).half(), (draw(3, 4, 8, 8).half() + 0.5).half()
    expected = ((prediction.numpy().astype(np.float64) - target.numpy().astype(np.float64)) ** 2).mean(axis=(1, 2, 3))
    actual = mean_squared_error(prediction, target)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6)


def test_large_half_precision_differences_do_not_overflow() -> None:
    """300^2 = 90000 > 65504, the largest fp16."""
    assert mean_squared_error(torch.full((1, 2), 300.0).half(), torch.zeros(1, 2).half()).item() == 90000


def test_errors_of_a_batch_equal_its_rows_alone() -> None:
    prediction, target = draw(4, 3, 5), draw(4, 3, 5, seed=1)
    alone = [mean_squared_error(prediction[i:i + 1], target[i:i + 1]) for i in range(4)]
    assert torch.equal(mean_squared_error(prediction, target), torch.cat(alone))


def test_error_shapes_must_be_equal() -> None:
    with pytest.raises(ValueError) as error:
        mean_squared_error(torch.zeros(2, 3), torch.zeros(2, 1))
    assert str(error.value) == "shapes must be equal, got prediction (2, 3), target (2, 1)"


def test_margin_by_hand() -> None:
    """-((0.10 - 0.11) - (0.20 - 0.19)) = 0.02 (METHODS 18.2.7)."""
    errors = pair_errors(doubles(0.10), doubles(0.20), doubles(0.11), doubles(0.19))
    assert implicit_margin(errors).item() == pytest.approx(0.02, abs=1e-15)


@pytest.mark.parametrize("missing", ["policy_l", "reference_w", "reference_l"])
def test_margin_needs_all_four_errors(missing: str) -> None:
    given = {name: torch.ones(2) for name in ("policy_w", "policy_l", "reference_w", "reference_l") if name != missing}
    with pytest.raises(ValueError, match="needs winner and loser errors of policy and reference, got some missing"):
        implicit_margin(PairErrors(**given))


def test_margin_refuses_columns() -> None:
    with pytest.raises(ValueError) as error:
        implicit_margin(pair_errors(*[torch.ones(2, 1)] * 4))
    assert str(error.value) == "w must have shape (B,), got (2, 1); pass one number per pair"


# --- losses ---

def test_closed_form_of_methods() -> None:
    """METHODS 18.2.7: beta = 2000, margin 0.02: logit 0.5 * 2000 * 0.02 = 20, loss log(1 + e^-20) = 2.06e-9."""
    margin = implicit_margin(pair_errors(doubles(0.10), doubles(0.20), doubles(0.11), doubles(0.19)))
    assert preference_logit(margin, doubles(1.0), beta=2000).item() == pytest.approx(20, abs=1e-11)
    assert dpo_loss(margin, beta=2000).item() == pytest.approx(2.06e-9, rel=1e-3)
    assert dpo_loss(margin, beta=2000).item() == pytest.approx(math.log1p(math.exp(-20)), rel=1e-9)


def test_equal_policy_and_reference_give_log_two() -> None:
    errors = pair_errors(draw(3).abs(), draw(3, seed=1).abs(), draw(3).abs(), draw(3, seed=1).abs())
    margin = implicit_margin(errors)
    assert margin.tolist() == [0, 0, 0]
    for loss in (dpo_loss(margin, beta=2000), smpo_loss(margin, some_p(3), beta=2000, gamma=10)):
        assert loss.tolist() == pytest.approx([0.693147] * 3, abs=1e-6)


def test_smpo_equals_the_transcribed_formula() -> None:
    rows = 0.2 + 0.001 * draw(4, 6)
    p = some_p(6)
    actual = smpo_loss(implicit_margin(pair_errors(*rows)), p, beta=2000, gamma=10)
    np.testing.assert_allclose(
        actual.numpy(), references.smpo_loss(rows.numpy(), p.numpy(), beta=2000, gamma=10), rtol=1e-9)


def test_code_beta_is_two_d_times_the_sum_reduced_beta() -> None:
    """METHODS 1.2: with squared norms instead of means the coefficient is beta / (2 D), 0.0610 for D = 16384."""
    size = 16384
    assert 2000 / (2 * size) == pytest.approx(0.0610, abs=5e-5)
    means = 0.2 + 0.001 * draw(4, 1)
    w, loser, ref_w, ref_l = (means * size).numpy()
    expected = -np.log(references.sigmoid(-2000 / (2 * size) * ((w - ref_w) - (loser - ref_l))))
    np.testing.assert_allclose(dpo_loss(implicit_margin(pair_errors(*means)), beta=2000), expected, rtol=1e-9)


def test_dpo_equals_smpo_with_full_weight() -> None:
    margin = 0.01 * draw(5)
    assert torch.equal(smpo_loss(margin, torch.ones(5).double(), beta=2000, gamma=1), dpo_loss(margin, beta=2000))


def test_weight_w_is_dpo_at_beta_w() -> None:
    """p = 0.65, gamma = 10: weight 10 (1.3 - 1) = 3."""
    margin = 0.001 * draw(5)
    actual = smpo_loss(margin, doubles(*[0.65] * 5), beta=500, gamma=10)
    assert torch.allclose(actual, dpo_loss(margin, beta=1500), rtol=1e-12)


def test_only_the_product_of_beta_and_gamma_matters() -> None:
    margin, p = 0.001 * draw(5), some_p(5)
    assert torch.allclose(
        smpo_loss(margin, p, beta=2000, gamma=10), smpo_loss(margin, p, beta=5000, gamma=4), rtol=1e-13)


def test_swapping_the_pair_and_negating_the_weight_changes_nothing() -> None:
    """METHODS 18.2.3: winner and loser exchanged and p -> 1 - p."""
    rows, p = 0.2 + 0.001 * draw(4, 6), some_p(6)
    swapped = rows[[1, 0, 3, 2]]
    assert torch.allclose(
        smpo_loss(implicit_margin(pair_errors(*rows)), p, beta=2000, gamma=10),
        smpo_loss(implicit_margin(pair_errors(*swapped)), 1 - p, beta=2000, gamma=10), rtol=1e-10)


@pytest.mark.parametrize("weight", ["dpo", "smpo"])
def test_a_better_winner_lowers_the_loss(weight: str) -> None:
    """D44 and METHODS 18.2.2: dL / dL_w > 0, dL / dL_l < 0, and the reference's gradients are their negatives."""
    rows = (0.2 + 0.001 * draw(4, 6)).requires_grad_()
    margin = implicit_margin(pair_errors(*rows))
    p = 0.5 + 0.5 * some_p(6)
    loss = dpo_loss(margin, beta=2000) if weight == "dpo" else smpo_loss(margin, p, beta=2000, gamma=10)
    loss.sum().backward()
    w, loser, ref_w, ref_l = rows.grad
    assert (w > 0).all() and (loser < 0).all()
    assert torch.allclose(ref_w, -w) and torch.allclose(ref_l, -loser) and torch.allclose(loser, -w)


def test_gradient_by_hand() -> None:
    """d loss / d margin = -c sigmoid(-c m), c = (2 p - 1) gamma beta / 2 = 0.2 * 10 * 100 = 200; m = 0.01: c m = 2."""
    margin = doubles(0.01).requires_grad_()
    smpo_loss(margin, doubles(0.6), beta=200, gamma=10).sum().backward()
    assert margin.grad.item() == pytest.approx(-200 / (1 + math.exp(2)), rel=1e-12)


def test_undecided_pairs_have_exactly_no_gradient() -> None:
    margin = torch.tensor([-3.0, 0.0, 5.0], requires_grad=True)
    loss = smpo_loss(margin, torch.full((3,), 0.5), beta=2000, gamma=10)
    loss.sum().backward()
    assert margin.grad.tolist() == [0, 0, 0]
    assert loss.tolist() == pytest.approx([math.log(2)] * 3)


def test_gradcheck() -> None:
    rows, p = (0.2 + 0.01 * draw(4, 5)).requires_grad_(), some_p(5).requires_grad_()

    def smpo(rows: Tensor, p: Tensor) -> Tensor:
        return smpo_loss(implicit_margin(pair_errors(*rows)), p, beta=50, gamma=3)

    assert torch.autograd.gradcheck(smpo, (rows, p))
    assert torch.autograd.gradcheck(lambda rows: dpo_loss(implicit_margin(pair_errors(*rows)), beta=50), (rows,))


@pytest.mark.parametrize("margin", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_tails_stay_finite(margin: float, dtype: torch.dtype) -> None:
    """beta = 2: logit = margin, so the loss is 0 or 1e4 and its gradient 0 or -1."""
    at = torch.tensor([margin], dtype=dtype, requires_grad=True)
    for loss in (dpo_loss(at, beta=2), smpo_loss(at, torch.ones(1, dtype=dtype), beta=2, gamma=1)):
        (gradient,) = torch.autograd.grad(loss.sum(), at)
        assert loss.item() == max(0.0, -margin) and gradient.item() == (0 if margin > 0 else -1)


def test_batch_equals_its_rows_alone() -> None:
    """METHODS 18.2.5: the released code weighs the whole batch by the first pair (D6)."""
    margin, p = 0.01 * draw(6), some_p(6)
    alone = [smpo_loss(margin[i:i + 1], p[i:i + 1], beta=2000, gamma=10) for i in range(6)]
    assert torch.allclose(smpo_loss(margin, p, beta=2000, gamma=10), torch.cat(alone), rtol=1e-14)
    assert smpo_loss(margin, p, beta=2000, gamma=10).shape == (6,)


def test_mean_is_taken_outside_the_sigmoid() -> None:
    """diffusers issue 6702: margins +-0.01 at beta 2000 give logits +-10; the loss is about 5 each, not log 2."""
    loss = dpo_loss(doubles(0.01, -0.01), beta=2000)
    assert loss.mean().item() == pytest.approx((math.log1p(math.exp(-10)) + math.log1p(math.exp(10))) / 2, rel=1e-12)


@pytest.mark.parametrize(("margin", "p", "message"), [
    ((2, 1), (2, 1), "margin must have shape (B,), got (2, 1); pass one number per pair"),
    ((2,), (2, 1), "weight must have shape (B,), got (2, 1); pass one number per pair"),
    ((2,), (1,), "shapes must be equal, got margin (2,), weight (1,)"),
    ((), (), "margin must have shape (B,), got (); pass one number per pair"),
])
def test_wrong_shapes_raise(margin: tuple, p: tuple, message: str) -> None:
    with pytest.raises(ValueError) as error:
        smpo_loss(torch.ones(margin), torch.ones(p), beta=1, gamma=1)
    assert str(error.value) == message


def test_dpo_refuses_columns() -> None:
    with pytest.raises(ValueError, match=r"margin must have shape \(B,\), got \(2, 1\)"):
        dpo_loss(torch.ones(2, 1), beta=1)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_beta_and_gamma_must_be_positive(bad: float) -> None:
    one = torch.ones(1)
    for call, name in (
        (lambda: dpo_loss(one, beta=bad), "beta"), (lambda: smpo_loss(one, one, beta=bad, gamma=1), "beta"),
        (lambda: smpo_loss(one, one, beta=1, gamma=bad), "gamma"),
    ):
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value) == f"{name} must be a finite number > 0, got {bad}"
