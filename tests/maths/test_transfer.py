"""The one step between two noise levels, against diffusers and METHODS 18.1."""

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from smpo.maths.betas import zero_terminal_snr
from smpo.maths.path import EpsilonPath, VPath
from tests.maths import references
from tests.maths.references import PATH, SD, TABLE, draw
from tests.maths.test_path import v_of

V, ZERO_V = VPath(TABLE), VPath(zero_terminal_snr(TABLE))
OPTIONS = {**SD, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False, "timestep_spacing": "leading"}


def levels(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def coefficients(a: int, b: int) -> tuple[float, float]:
    """(factor of x, factor of eps) of the step a -> b, read off with (1, 0) and (0, 1)."""
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    ends = levels(a), levels(b)
    return PATH.transfer(one, zero, *ends).item(), PATH.transfer(zero, one, *ends).item()


@pytest.mark.parametrize(("a", "b", "correct", "printed", "ratio"), [
    (1, 101, 0.2881, 0.3049, 1.06), (101, 201, 0.1976, 0.2279, 1.15), (401, 501, 0.2389, 0.4555, 1.91),
    (801, 901, 0.3854, 3.2563, 8.45),
])
def test_noise_coefficient_is_the_correct_one_not_the_printed_one(
    a: int, b: int, correct: float, printed: float, ratio: float
) -> None:
    """METHODS 18.1 and 2.3: the printed Eq. 13 is too large by 1 / sqrt(abar_b)."""
    abar_a, abar_b = references.abar_at(a), references.abar_at(b)
    from_paper = np.sqrt(1 / abar_b - 1) - np.sqrt(1 / abar_a - 1)
    actual = coefficients(a, b)[1]
    assert from_paper == pytest.approx(printed, abs=6e-5)
    assert actual == pytest.approx(correct, abs=6e-5)
    assert from_paper / actual == pytest.approx(ratio, abs=0.006)
    assert coefficients(a, b)[0] == pytest.approx(np.sqrt(abar_b / abar_a), abs=1e-14)


def test_step_from_clean_latents_is_the_forward_process() -> None:
    """From abar = 1 the coefficients are sqrt(abar_b) and sqrt(1 - abar_b)."""
    abar = references.abar_at(500)
    assert coefficients(-1, 500) == pytest.approx((np.sqrt(abar), np.sqrt(1 - abar)), abs=1e-14)


@pytest.mark.parametrize(("a", "b"), [(-1, 0), (0, 101), (700, 300), (1, 999), (400, 400)])
def test_equals_the_route_by_way_of_predicted_x_0(a: int, b: int) -> None:
    x, eps = draw(2, 3), draw(2, 3, seed=1)
    actual = PATH.transfer(x, eps, levels(a, a), levels(b, b))
    np.testing.assert_allclose(actual.numpy(), references.transfer(x.numpy(), eps.numpy(), a, b), atol=1e-12)


def test_every_row_has_its_own_levels() -> None:
    x, eps = draw(2, 3), draw(2, 3, seed=1)
    both = PATH.transfer(x, eps, levels(-1, 300), levels(100, 20))
    np.testing.assert_allclose(both[0], references.transfer(x[0].numpy(), eps[0].numpy(), -1, 100), atol=1e-12)
    np.testing.assert_allclose(both[1], references.transfer(x[1].numpy(), eps[1].numpy(), 300, 20), atol=1e-12)


@pytest.mark.parametrize("label", [901, 501, 101, 1])
def test_equals_diffusers_ddim_step(label: int) -> None:
    """METHODS 14: DDIMScheduler.step goes from t to t - 100; below 0 that is level 0 (set_alpha_to_one=False)."""
    scheduler = DDIMScheduler(**OPTIONS)
    scheduler.set_timesteps(10)
    x, eps = draw(2, 4, 3, 3), draw(2, 4, 3, 3, seed=1)
    expected = scheduler.step(eps, label, x, eta=0.0).prev_sample
    actual = PATH.transfer(x, eps, levels(label, label), levels(*[max(label - 100, 0)] * 2))
    assert torch.allclose(actual, expected, atol=5e-6)


@pytest.mark.parametrize("label", [1, 101, 501, 901])
def test_equals_diffusers_inverse_step(label: int) -> None:
    """METHODS 14, diffusers >= 0.22: DDIMInverseScheduler.step arrives at t from t - 100 (level 0 when negative)."""
    scheduler = DDIMInverseScheduler(**OPTIONS)
    scheduler.set_timesteps(10)
    x, eps = draw(2, 4, 3, 3), draw(2, 4, 3, 3, seed=1)
    expected = scheduler.step(eps, label, x).prev_sample
    actual = PATH.transfer(x, eps, levels(*[max(label - 100, 0)] * 2), levels(label, label))
    assert torch.allclose(actual, expected, atol=5e-6)


def test_step_there_and_back_is_the_identity() -> None:
    x, eps = draw(2, 3), draw(2, 3, seed=1)
    there = PATH.transfer(x, eps, levels(-1, 999), levels(999, 3))
    assert torch.allclose(PATH.transfer(there, eps, levels(999, 3), levels(-1, 999)), x, atol=1e-12)


def test_two_steps_along_one_noise_are_one_step() -> None:
    x, eps = draw(1, 3), draw(1, 3, seed=1)
    through = PATH.transfer(PATH.transfer(x, eps, levels(-1), levels(300)), eps, levels(300), levels(800))
    assert torch.allclose(through, PATH.transfer(x, eps, levels(-1), levels(800)), atol=1e-13)


def test_shapes_that_would_broadcast_raise() -> None:
    with pytest.raises(ValueError) as error:
        PATH.transfer(torch.zeros(2, 3), torch.zeros(2, 1), levels(1, 1), levels(2, 2))
    assert str(error.value) == "shapes must be equal, got x (2, 3), output (2, 1)"


@pytest.mark.parametrize(("a", "b"), [(-1, 0), (0, 101), (700, 300), (1, 999), (400, 400)])
def test_transfer_along_v_is_the_transfer_of_the_same_models_noise(a: int, b: int) -> None:
    x, eps = draw(2, 3), draw(2, 3, seed=1)
    v = v_of(eps, x, V, levels(a, a))
    torch.testing.assert_close(V.transfer(x, v, levels(a, a), levels(b, b)),
                               PATH.transfer(x, eps, levels(a, a), levels(b, b)), rtol=1e-9, atol=1e-11)


def test_transfer_along_v_equals_diffusers_step() -> None:
    scheduler = DDIMScheduler(**OPTIONS, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    scheduler.set_timesteps(10)
    x, v = draw(2, 4, 3, 3), draw(2, 4, 3, 3, seed=1)
    expected = scheduler.step(v, 901, x, eta=0.0).prev_sample
    assert torch.allclose(ZERO_V.transfer(x, v, levels(901, 901), levels(801, 801)), expected, atol=5e-6)


def test_transfer_along_v_passes_the_level_without_image() -> None:
    """At alpha = 0: up to it and back along the true v of (x_0, eps) gives the latents of the forward process."""
    x_0, eps, clean, last = draw(1, 3), draw(1, 3, seed=1), levels(-1), levels(999)
    top = ZERO_V.transfer(x_0, ZERO_V.target(x_0, eps, clean), clean, last)
    assert torch.allclose(top, eps, atol=1e-12)
    back = ZERO_V.transfer(top, ZERO_V.target(x_0, eps, last), last, levels(500))
    assert torch.allclose(back, ZERO_V.mix(x_0, eps, levels(500)), atol=1e-12)


def test_paths_of_one_table_differ_in_what_is_predicted_alone() -> None:
    assert torch.equal(EpsilonPath(TABLE).mixture(levels(7))[0], V.mixture(levels(7))[0])
