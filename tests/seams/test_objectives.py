"""Seam 3: objectives bind hyper-parameters to the losses."""

import math

import numpy as np
import pytest
import torch

from smpo.core.errors import ConfigError
from smpo.core.records import PairErrors
from smpo.maths.preference import implicit_margin
from smpo.objectives import OBJECTIVES
from tests.maths import references
from tests.maths.references import doubles, draw

ROWS = 0.2 + 0.001 * draw(4, 5)
ERRORS = PairErrors(policy_w=ROWS[0], policy_l=ROWS[1], reference_w=ROWS[2], reference_l=ROWS[3])
P = torch.sigmoid(draw(5, seed=7))


def test_smpo_equals_the_transcribed_formula() -> None:
    loss = OBJECTIVES.build({"name": "smpo", "beta": 3000, "gamma": 5})(ERRORS, P)
    np.testing.assert_allclose(loss.value, references.smpo_loss(ROWS.numpy(), P.numpy(), beta=3000, gamma=5), rtol=1e-9)


def test_dpo_is_smpo_with_full_weight_and_ignores_p() -> None:
    loss = OBJECTIVES.build({"name": "dpo", "beta": 3000})(ERRORS, P)
    expected = references.smpo_loss(ROWS.numpy(), np.ones(5), beta=3000, gamma=1)
    np.testing.assert_allclose(loss.value, expected, rtol=1e-9)


def test_sft_is_the_winners_error_and_ignores_losers() -> None:
    sft = OBJECTIVES.build({"name": "sft"})
    assert torch.equal(sft(PairErrors(policy_w=ROWS[0]), P).value, ROWS[0])
    assert torch.equal(sft(ERRORS, P).value, ROWS[0])
    assert sft(ERRORS, P).logit is None


@pytest.mark.parametrize(("name", "reference", "winner_share", "smoothed"), [
    ("smpo", True, None, True), ("dpo", True, None, False), ("sft", False, 1.0, False), ("mapo", False, None, False),
    ("kto", True, 0.8, False), ("ipo", True, None, True), ("cdpo", True, None, True), ("linear", True, None, True),
])
def test_objectives_say_what_they_need(name: str, reference: bool, winner_share: float | None, smoothed: bool) -> None:
    objective = OBJECTIVES.build({"name": name})
    assert (objective.needs_reference, objective.winner_share) == (reference, winner_share)
    assert objective.takes_smoothed_labels == smoothed and objective.needs_pool == (name == "kto")


@pytest.mark.parametrize("name", ["ipo", "cdpo", "linear"])
def test_soft_label_objectives_equal_the_independent_formulas(name: str) -> None:
    loss = OBJECTIVES.build({"name": name, "beta": 3000})(ERRORS, P)
    expected = getattr(references, f"{name}_loss")(ROWS.numpy(), P.numpy(), beta=3000)
    np.testing.assert_allclose(loss.value, expected, rtol=1e-9)


def test_mapo_equals_the_transcribed_formula_and_needs_no_reference() -> None:
    settings = {"beta": 0.2, "temperature": 500.0, "snr": 0.7}
    loss = OBJECTIVES.build({"name": "mapo", **settings})(PairErrors(ROWS[0], ROWS[1]), P)
    expected = references.mapo_loss(ROWS[0].numpy(), ROWS[1].numpy(), **settings)
    np.testing.assert_allclose(loss.value, expected, rtol=1e-9)


@pytest.mark.parametrize("utility", ["kahneman-tversky", "loss-averse", "risk-seeking"])
def test_kto_equals_the_transcribed_formula_with_the_steps_own_point(utility: str) -> None:
    """The mean of the pool is k = 0.0007: it belongs to the whole step, not to this batch."""
    kto, shown = OBJECTIVES.build({"name": "kto", "beta": 1500, "utility": utility}), doubles(1, 0, 1, 1, 0)
    errors = PairErrors(policy_w=ROWS[0], reference_w=ROWS[1], pool=doubles(0.0003, 0.0011))
    expected = references.kto_loss(ROWS[:2].numpy(), shown.numpy() == 1, beta=1500, k=0.0007, utility=utility)
    np.testing.assert_allclose(kto(errors, shown).value, expected, rtol=1e-9)
    x = 1500 * np.where(shown == 1, 1, -1) * ((ROWS[1] - ROWS[0]).numpy() - 0.0007)
    np.testing.assert_allclose(kto(errors, shown).logit, x, rtol=1e-9)
    with pytest.raises(ValueError, match="KTO needs the rewards of the whole optimizer step as errors.pool, got none"):
        kto(PairErrors(policy_w=ROWS[0], reference_w=ROWS[1]), shown)


@pytest.mark.parametrize("name", ["smpo", "ipo", "cdpo", "linear"])
def test_logits_turn_with_the_likelier_image(name: str) -> None:
    """Positive where policy and label agree: with 1 - p the same pair counts the other way, at even odds not at all."""
    objective = OBJECTIVES.build({"name": name})
    logit = objective(ERRORS, P).logit
    assert torch.equal(torch.sign(logit), torch.sign(P - 0.5) * torch.sign(implicit_margin(ERRORS)))
    torch.testing.assert_close(objective(ERRORS, 1 - P).logit, -logit, rtol=1e-12, atol=0)
    assert not objective(ERRORS, torch.full_like(P, 0.5)).logit.any()


def test_logits_by_hand() -> None:
    """Margin 0.02 (METHODS 18.2.7): DPO 0.5 * 2000 * 0.02 = 20; SmPO at p = 0.65, gamma = 10 three times that."""
    errors = PairErrors(
        policy_w=doubles(0.10), policy_l=doubles(0.20), reference_w=doubles(0.11), reference_l=doubles(0.19))
    p = doubles(0.65)
    assert OBJECTIVES.build({"name": "dpo", "beta": 2000})(errors, p).logit.item() == pytest.approx(20, abs=1e-11)
    assert OBJECTIVES.build({"name": "smpo", "beta": 2000, "gamma": 10})(errors, p).logit.item() == pytest.approx(60)


@pytest.mark.parametrize("name", ["smpo", "dpo"])
def test_loss_is_minus_log_sigmoid_of_the_logit(name: str) -> None:
    objective = OBJECTIVES.build({"name": name})
    np.testing.assert_allclose(
        objective(ERRORS, P).value, -np.log(references.sigmoid(objective(ERRORS, P).logit.numpy())), rtol=1e-9)


@pytest.mark.parametrize("name", ["smpo", "dpo"])
def test_loss_at_the_start_is_log_two(name: str) -> None:
    equal = PairErrors(policy_w=ROWS[0], policy_l=ROWS[1], reference_w=ROWS[0], reference_l=ROWS[1])
    assert OBJECTIVES.build({"name": name})(equal, P).value.tolist() == pytest.approx([math.log(2)] * 5, abs=1e-15)


def test_defaults_are_those_of_the_papers() -> None:
    """METHODS 2.5: beta 2000 (SD1.5), gamma 10; 8 for KTO (beta of the code, share of the paper); 9.1 for MaPO."""
    smpo = OBJECTIVES.build({"name": "smpo"})
    assert (smpo.beta, smpo.gamma) == (2000.0, 10.0) and OBJECTIVES.build({"name": "dpo"}).beta == 2000.0
    kto, mapo = OBJECTIVES.build({"name": "kto"}), OBJECTIVES.build({"name": "mapo"})
    assert (kto.beta, kto.utility, kto.winner_share) == (1000.0, "kahneman-tversky", 0.8)
    assert (mapo.beta, mapo.temperature, mapo.snr) == (0.1, 1000.0, 0.5)


@pytest.mark.parametrize(("settings", "message"), [
    ({"name": "smpo", "beta": -1}, "objective: beta must be a finite number > 0, got -1.0"),
    ({"name": "smpo", "gamma": 0}, "objective: gamma must be a finite number > 0, got 0.0"),
    ({"name": "ipo", "beta": 0}, "objective: beta must be a finite number > 0, got 0.0"),
    ({"name": "mapo", "snr": -1}, "objective: snr must be a finite number > 0, got -1.0"),
    ({"name": "kto", "winner_share": 1.5}, "objective: winner_share must lie in [0, 1], got 1.5"),
    ({"name": "kto", "utility": "averse"},
     "objective: unknown objective.utility 'averse'; known: kahneman-tversky, loss-averse, risk-seeking. Did you mean"
     " 'loss-averse'?"),
    ({"name": "dpo", "beta": float("nan")}, "objective: beta must be a finite number > 0, got nan"),
])
def test_unusable_hyper_parameters_are_one_line_errors(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        OBJECTIVES.build(settings)
    assert str(error.value) == message
