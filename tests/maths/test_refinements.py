"""The refinements beside the paper's: ReNoise at every step, and the midpoint."""

import numpy as np
import pytest
import torch
from torch import Tensor

from smpo.maths.inversion import inversion_levels, invert, renoise_every
from tests.maths import references
from tests.maths.references import PATH, TABLE, draw

CLEAN = -1


def rounds_of(rounds: int, averaged: int = 1):
    return lambda step: renoise_every(step, rounds=rounds, averaged=averaged)


def one_step(factor: dict[int, float], x_0: float, levels: list[int], refine: object) -> float:
    """The end of an inversion under eps(x, label) = factor(label) x."""
    return invert(
        lambda x, t, rows: factor[t.item()] * x, torch.tensor([[x_0]]).double(), torch.tensor([levels]),
        path=PATH, refine=refine,
    ).item()


@pytest.mark.parametrize(("rounds", "averaged"), [(0, 1), (1, 1), (1, 2), (3, 1), (3, 2), (3, 4)])
def test_rounds_of_renoise_by_hand(rounds: int, averaged: int) -> None:
    """eps = 0.3 x at 500, from clean x_0 = 2: e_0 = 0.3 2, y_k = a 2 + b e_k, e_(k+1) = 0.3 y_k; T of their mean."""
    a, b = np.sqrt(references.abar_at(500)), np.sqrt(1 - references.abar_at(500))
    found = [0.3 * 2]
    for _ in range(rounds):
        found.append(0.3 * (a * 2 + b * found[-1]))
    expected = a * 2 + b * np.mean(found[-averaged:])
    assert one_step({500: 0.3}, 2.0, [CLEAN, 500], rounds_of(rounds, averaged)) == pytest.approx(expected, abs=1e-13)


def test_rounds_contract_to_the_latent_that_a_step_back_returns() -> None:
    """x = a x_0 + b 0.3 x has x = a x_0 / (1 - 0.3 b); every round takes 0.3 b = 0.256 of the distance to it."""
    a, b = np.sqrt(references.abar_at(500)), np.sqrt(1 - references.abar_at(500))
    fixed = a * 2 / (1 - 0.3 * b)
    distance = [one_step({500: 0.3}, 2.0, [CLEAN, 500], rounds_of(rounds)) - fixed for rounds in range(6)]
    assert [far / near for near, far in zip(distance, distance[1:], strict=False)] == pytest.approx([0.3 * b] * 5)
    back = (fixed - b * 0.3 * fixed) / a  # the DDIM step 500 -> clean
    assert back == pytest.approx(2.0)


def test_more_rounds_bring_the_round_trip_closer_on_a_curved_field() -> None:
    """DDIM back over the same levels, each step under the label where it starts: the error falls with every round."""
    x_0, levels = draw(3, 4), torch.tensor([[CLEAN, 200, 450, 700]] * 3)

    def model(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return 0.6 * torch.sin(2 * x + rows[:, None]) * torch.cos(t / 400)[:, None]

    errors = []
    for rounds in range(5):
        x = invert(model, x_0, levels, path=PATH, refine=rounds_of(rounds))
        for a, b in ((700, 450), (450, 200), (200, CLEAN)):
            eps = model(x, torch.full((3,), a), torch.arange(3)).numpy()
            x = torch.from_numpy(references.transfer(x.numpy(), eps, a, b))
        errors.append((x - x_0).abs().mean().item())
    assert all(far < 0.8 * near for near, far in zip(errors, errors[1:], strict=False)), errors


def test_the_midpoint_by_hand() -> None:
    """Clean -> 500: sigma of 500 is 1.6237, half 0.8118; sigma of 314 is .8107, of 315 .8145. x_m = T_314(0.1 2)."""
    sigma = np.sqrt(1 / references.alphas_cumprod() - 1)
    middle = int(np.abs(sigma - sigma[500] / 2).argmin())
    x_m = references.transfer(np.array(2.0), np.array(0.1 * 2), CLEAN, middle)
    expected = references.transfer(np.array(2.0), 0.3 * x_m, CLEAN, 500)
    assert one_step({0: 0.1, middle: 0.3}, 2.0, [CLEAN, 500], "midpoint") == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize(("start", "end", "expected"), [
    (CLEAN, 0, 0), (CLEAN, 1, 0), (0, 1, 1), (5, 6, 6), (998, 999, 999), (0, 2, 1), (997, 999, 998),
])
def test_half_way_lies_above_the_start_and_at_most_on_the_end(start: int, end: int, expected: int) -> None:
    assert PATH.half_way(torch.tensor([start]), torch.tensor([end])).item() == expected


def test_half_way_is_the_row_nearest_in_sigma() -> None:
    start, end = torch.tensor([CLEAN, 100, 400, 0]), torch.tensor([500, 300, 999, 999])
    sigma = np.sqrt(1 / references.alphas_cumprod() - 1)
    for row, (a, b) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        middle = (sigma[b] + (0 if a == CLEAN else sigma[a])) / 2
        assert PATH.half_way(start, end)[row] == np.abs(sigma - middle).argmin()


def test_the_midpoint_converges_faster_than_first_order() -> None:
    """eps = 2 y / (1 + sigma) has y ~ (1 + sigma)^2, as in test_inversion's test of Heun; levels start from 0.

    Four times the steps: a first-order error falls to a quarter at best (plain: 3.2), a second-order one to a 16th;
    half-way is a row of the table, 7.8 here.
    """
    sigma = (1 / TABLE - 1).sqrt()
    exact = TABLE.sqrt() * (1 + sigma) ** 2

    def error(steps: int) -> float:
        x_t = invert(
            lambda x, t, rows: (2 / TABLE[t].sqrt() / (1 + sigma[t]))[:, None] * x, exact[0].view(1, 1),
            torch.arange(0, 961, 960 // steps)[None], path=PATH, refine="midpoint",
        )
        return abs(x_t.item() / exact[960].item() - 1)

    assert error(20) / error(80) == pytest.approx(7.8, abs=0.1)
    assert error(20) == pytest.approx(0.0257, abs=1e-4)  # plain -0.2715, Heun -0.0464


@pytest.mark.parametrize("refine", ["midpoint", rounds_of(1), rounds_of(4, 3)], ids=["midpoint", "1", "4 of 3"])
@pytest.mark.parametrize("t", [1, 2, 998, 999])
def test_both_ends_of_the_schedule_stay_finite_and_a_constant_noise_is_found(t: int, refine: object) -> None:
    x_0, eps = draw(1, 5), draw(1, 5, seed=1)
    levels = inversion_levels(torch.tensor([t]), num_steps=9, grid="subdivide")
    x_t = invert(lambda x, labels, rows: eps, x_0, levels, path=PATH, refine=refine)
    torch.testing.assert_close(x_t, PATH.mix(x_0, eps, torch.tensor([t])), rtol=0, atol=1e-12)
    torch.testing.assert_close(PATH.target_of(x_t, x_0, torch.tensor([t])), eps, rtol=0, atol=1e-9)
