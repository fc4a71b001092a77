"""METHODS 18.1; the forward process and the targets of both diffusion paths."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from smpo.maths.betas import scaled_linear_alphas_cumprod, zero_terminal_snr
from smpo.maths.path import CLEAN, EpsilonPath, GaussianPath, VPath, per_sample
from tests.maths import references
from tests.maths.references import PATH, SD, TABLE, doubles, draw

V, ZERO_V = VPath(TABLE), VPath(zero_terminal_snr(TABLE))
PATHS = pytest.mark.parametrize("path", [PATH, V, ZERO_V], ids=["epsilon", "v", "v, zero terminal SNR"])
LEVELS = torch.tensor([0, 1, 101, 501, 999])


@pytest.mark.parametrize(("level", "expected", "digits"), [
    (0, 0.99915, 8), (1, 0.99829603, 8), (101, 0.89298054, 7), (201, 0.7521434, 7), (401, 0.42288152, 7),
    (501, 0.27499907, 7), (601, 0.15981644, 7), (801, 0.03654652, 8), (901, 0.0140049, 7), (999, 0.0046601, 7),
])
def test_table_has_the_published_constants(level: int, expected: float, digits: int) -> None:
    """METHODS 18.1, printed from a float32 table (hence 7 digits); level 0 is 1 - 0.00085 by hand."""
    assert scaled_linear_alphas_cumprod()[level].item() == pytest.approx(expected, abs=2 * 10.0**-digits)


def test_noise_level_of_the_first_timestep() -> None:
    """sqrt(1 - abar_0) = sqrt(0.00085) = 0.0291548."""
    assert (1 - scaled_linear_alphas_cumprod()[0]).sqrt().item() == pytest.approx(0.0291548, abs=1e-7)


def test_table_is_float64_and_equals_a_plain_loop() -> None:
    table = scaled_linear_alphas_cumprod()
    assert table.dtype == torch.float64 and table.shape == (1000,)
    np.testing.assert_allclose(table.numpy(), references.alphas_cumprod(), rtol=1e-13)


def test_table_keeps_what_half_precision_loses() -> None:
    """METHODS D21: in fp16 1 - abar is off by 15 % at t = 0, 14 % at 1, 5 % at 2, and ours is not."""
    table = scaled_linear_alphas_cumprod()[:3]
    relative = ((1 - table.half().double()) / (1 - table) - 1).abs()
    assert relative.tolist() == pytest.approx([0.15, 0.14, 0.05], abs=0.006)
    np.testing.assert_allclose((1 - table).numpy(), 1 - references.alphas_cumprod()[:3], rtol=1e-11)


def test_table_equals_diffusers() -> None:
    ours = scaled_linear_alphas_cumprod()
    assert (ours - DDPMScheduler(**SD).alphas_cumprod.double()).abs().max() < 1e-6


def test_table_follows_its_arguments() -> None:
    """Two steps, beta = 0.25 and 0.36: abar = 0.75 and 0.75 * 0.64 = 0.48."""
    table = scaled_linear_alphas_cumprod(2, beta_start=0.25, beta_end=0.36)
    assert table.tolist() == pytest.approx([0.75, 0.48], abs=1e-15)


def test_clean_level_has_alpha_bar_one_and_others_are_looked_up() -> None:
    abar = PATH.alpha_bar(torch.tensor([[CLEAN, 0], [999, 501]]))
    assert abar.dtype == torch.float64
    assert abar.tolist() == [[1.0, TABLE[0].item()], [TABLE[999].item(), TABLE[501].item()]]
    assert PATH.alpha_bar(torch.tensor([], dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize(("levels", "bounds"), [([-2, 5], "[-2, 5]"), ([-99], "[-99, -99]"), ([7, 1000], "[7, 1000]")])
def test_levels_outside_the_table_raise(levels: list[int], bounds: str) -> None:
    """A negative label of the released code (D18) must not wrap round to the end of the table."""
    with pytest.raises(ValueError) as error:
        PATH.mixture(torch.tensor(levels))
    assert str(error.value) == f"levels must lie in [-1, 999], got {bounds}"


def test_mix_equals_diffusers() -> None:
    x_0, noise = draw(5, 2, 3), draw(5, 2, 3, seed=1)
    expected = DDPMScheduler(**SD).add_noise(x_0, noise, LEVELS)
    actual = PATH.mix(x_0, noise, LEVELS)
    assert torch.allclose(actual, expected, atol=2e-6)


@PATHS
def test_target_of_mixed_latents_is_the_target_of_their_noise(path: GaussianPath) -> None:
    x_0, noise = draw(5, 2, 3), draw(5, 2, 3, seed=1)
    target = path.target_of(path.mix(x_0, noise, LEVELS), x_0, LEVELS)
    assert torch.allclose(target, path.target(x_0, noise, LEVELS), atol=1e-11)


@pytest.mark.parametrize(("t", "reached", "k_0", "k_1"), [
    (2, 101, -1.06, 6.46), (50, 101, -0.14, 1.49), (350, 401, -0.09, 1.08), (950, 901, 0.03, 1.00),
    (2, 201, -2.60, 9.84), (50, 201, -0.49, 2.26), (950, 801, 0.10, 0.99),
])
def test_target_at_the_wrong_level_has_the_documented_image_content(
    t: int, reached: int, k_0: float, k_1: float
) -> None:
    """METHODS 3.5: latents at level e, tau taken at t, give k_0 x_0 + k_1 eps; read off with (1, 0) and (0, 1)."""
    x_0, noise = torch.tensor([[1.0], [0.0]]).double(), torch.tensor([[0.0], [1.0]]).double()
    x_e = PATH.mix(x_0, noise, torch.tensor([reached, reached]))
    assert PATH.target_of(x_e, x_0, torch.tensor([t, t])).flatten().tolist() == pytest.approx([k_0, k_1], abs=0.006)


def v_of(noise: torch.Tensor, x_t: torch.Tensor, path: VPath, levels: torch.Tensor) -> torch.Tensor:
    """The v of a noise prediction (Salimans & Ho 2022): alpha eps - sigma (x_t - sigma eps) / alpha."""
    alpha, sigma = (per_sample(coefficient, x_t) for coefficient in path.mixture(levels))
    return alpha * noise - sigma * (x_t - sigma * noise) / alpha


def test_v_target_equals_diffusers() -> None:
    x_0, noise = draw(5, 2, 3), draw(5, 2, 3, seed=1)
    expected = DDPMScheduler(**SD).get_velocity(x_0, noise, LEVELS)
    assert torch.allclose(V.target(x_0, noise, LEVELS), expected, atol=2e-6)


def test_an_error_in_v_is_the_error_in_noise_over_alpha() -> None:
    """The squared v-error is the squared noise error divided by alpha_bar, of one and the same denoiser."""
    x_0, noise, prediction = draw(5, 2, 3), draw(5, 2, 3, seed=1), draw(5, 2, 3, seed=2)
    x_t = PATH.mix(x_0, noise, LEVELS)
    squared = (v_of(prediction, x_t, V, LEVELS) - V.target(x_0, noise, LEVELS)).square()
    expected = (prediction - PATH.target(x_0, noise, LEVELS)).square() / TABLE[LEVELS].view(-1, 1, 1)
    torch.testing.assert_close(squared, expected, rtol=1e-9, atol=1e-12)


def test_targets_at_the_last_level_of_zero_terminal_snr() -> None:
    """alpha = 0, sigma = 1: the latents are the noise, and v is minus the image, whatever the latents are."""
    x_0, noise, last = draw(2, 3), draw(2, 3, seed=1), torch.tensor([999, 999])
    assert torch.equal(ZERO_V.mix(x_0, noise, last), noise)
    assert torch.equal(ZERO_V.target(x_0, noise, last), -x_0)
    assert torch.equal(ZERO_V.target_of(draw(2, 3, seed=2), x_0, last), -x_0)


def test_zero_terminal_snr_equals_diffusers() -> None:
    scheduler = DDIMScheduler(**SD, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    table = zero_terminal_snr(TABLE)
    assert table[-1] == 0 and table[0] == TABLE[0] and bool((table.diff() < 0).all())
    assert (table - scheduler.alphas_cumprod.double()).abs().max() < 1e-6


@pytest.mark.parametrize("path", [PATH, V])
@pytest.mark.parametrize(("function", "names"), [
    ("mix", "x_0 (2, 3), noise (2, 1)"), ("target_of", "x_t (2, 3), x_0 (2, 1)"),
])
def test_shapes_that_would_broadcast_raise(path: GaussianPath, function: str, names: str) -> None:
    with pytest.raises(ValueError) as error:
        getattr(path, function)(torch.zeros(2, 3), torch.zeros(2, 1), torch.ones(2).long())
    assert str(error.value) == f"shapes must be equal, got {names}"


@PATHS
def test_progress_starts_at_zero_and_rises(path: GaussianPath) -> None:
    along = path.progress(torch.arange(-1, 1000))
    assert along[0] == 0 and bool((along.diff() > 0).all())


def test_posterior_variance_by_hand() -> None:
    """abar 0.8 -> 0.4: 0.2 / 0.6 * (1 - 1/2) = 1/6; clean -> 0.4: 0; no step: 0."""
    path = EpsilonPath(doubles(0.8, 0.4))
    variance = path.posterior_variance(torch.tensor([0, CLEAN, 1]), torch.tensor([1, 1, 1]))
    assert variance.tolist() == pytest.approx([1 / 6, 0, 0], abs=1e-15)


def test_posterior_variance_is_that_of_bayes_rule() -> None:
    """x_to = sqrt(r) x_from + noise of variance 1 - r, r = abar_to / abar_from: precisions add."""
    start, end = torch.tensor([0, 1, 101, 801]), torch.tensor([1, 101, 201, 901])
    abar_from, abar_to = TABLE[start], TABLE[end]
    ratio = abar_to / abar_from
    expected = 1 / (1 / (1 - abar_from) + ratio / (1 - ratio))
    torch.testing.assert_close(PATH.posterior_variance(start, end), expected)
