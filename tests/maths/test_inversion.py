"""Level grids and the inversion loop: METHODS 3.5, 4.1, 18.4."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from smpo.core.errors import ConfigError
from smpo.maths.inversion import REFINEMENTS, inversion_levels, invert, last_step, source_label
from tests.maths import references
from tests.maths.references import PATH, TABLE, draw

GRIDS_THAT_END_ON_T = ("subdivide", "fixed_stride")
TIMESTEPS = torch.tensor([1, 2, 9, 101, 500, 999])


class Recorder:
    """A nonlinear per-row model that keeps what it was asked: f = sin(x + row) cos(label / 300)."""

    def __init__(self) -> None:
        self.labels: list[Tensor] = []
        self.rows: list[Tensor] = []
        self.predictions: list[Tensor] = []

    def __call__(self, x: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        noise = torch.sin(x + rows.to(x.dtype)[:, None]) * torch.cos(labels / 300).to(x.dtype)[:, None]
        self.labels.append(labels)
        self.rows.append(rows)
        self.predictions.append(noise)
        return noise

    def count(self, batch: int) -> list[int]:
        """Number of predictions made for each row of the batch."""
        return torch.bincount(torch.cat(self.rows), minlength=batch).tolist()


def distinct(levels: Tensor) -> list[int]:
    return [level for level, _ in itertools.groupby(levels.tolist())]


def gaussian_error(variance: float, t: int, steps: int, **options: str) -> float:
    """Relative error of the inverted latent of x_0 = 1 under the exact Gaussian model."""
    levels = inversion_levels(torch.tensor([t]), num_steps=steps, grid="subdivide")
    x_t = invert(
        references.gaussian_model(variance), torch.ones(1, 1).double(), levels, path=PATH, **options
    )
    return x_t.item() / references.gaussian_solution(variance, t) - 1


# --- levels ---

def test_subdivide_cuts_t_into_equal_parts() -> None:
    """t = 101, N = 4: 25.25, 50.5 (half to even: 50), 75.75, 101; t = 3 gives repeats, which are no steps."""
    levels = inversion_levels(torch.tensor([101, 3]), num_steps=4, grid="subdivide")
    assert levels.tolist() == [[-1, 25, 50, 76, 101], [-1, 1, 2, 2, 3]]


def test_fixed_stride_takes_multiples_and_cuts_the_last() -> None:
    """N = 9: stride ceil(1000 / 9) = 112."""
    levels = inversion_levels(torch.tensor([1, 112, 300, 999]), num_steps=9, grid="fixed_stride")
    assert [distinct(row) for row in levels] == [
        [-1, 1], [-1, 112], [-1, 112, 224, 300], [-1, 112, 224, 336, 448, 560, 672, 784, 896, 999],
    ]


@pytest.mark.parametrize(("num_steps", "set_timesteps"), [(9, 10), (4, 5)])
def test_released_grid_passes_the_levels_of_the_released_loop(num_steps: int, set_timesteps: int) -> None:
    levels = inversion_levels(torch.arange(1, 1000), num_steps=num_steps, grid="released")
    for t, row in enumerate(levels, start=1):
        assert distinct(row) == references.released_levels(t, set_timesteps)


@pytest.mark.parametrize(("num_steps", "reached", "mean", "mean_abs", "extremes", "nats"), [
    (9, set(range(1, 902, 100)), 39.7, 49.4, (-98, 99), 0.47),
    (4, {1, 201, 401, 601, 801}, 59.9, 99.3, (-198, 199), 0.89),
])
def test_released_grid_has_the_documented_level_errors(
    num_steps: int, reached: set[int], mean: float, mean_abs: float, extremes: tuple[int, int], nats: float
) -> None:
    """METHODS 3.5, over t in 0..999; t = 0, which we refuse (D20), would reach level 1."""
    t = torch.arange(1000)
    ends = torch.cat([torch.tensor([1]), inversion_levels(t[1:], num_steps=num_steps, grid="released")[:, -1]])
    log_snr = torch.logit(TABLE)
    assert set(ends.tolist()) == reached
    assert (ends - t).double().mean().item() == pytest.approx(mean, abs=0.05)
    assert (ends - t).abs().double().mean().item() == pytest.approx(mean_abs, abs=0.05)
    assert ((ends - t).min().item(), (ends - t).max().item()) == extremes
    assert (log_snr[ends] - log_snr).abs().mean().item() == pytest.approx(nats, abs=0.005)


@pytest.mark.parametrize("grid", GRIDS_THAT_END_ON_T)
@pytest.mark.parametrize("num_steps", [1, 4, 9, 20])
def test_levels_rise_from_clean_to_exactly_t(grid: str, num_steps: int) -> None:
    t = torch.arange(1, 1000)
    levels = inversion_levels(t, num_steps=num_steps, grid=grid)
    assert levels.shape == (999, num_steps + 1) and levels.dtype == torch.int64
    assert (levels[:, 0] == -1).all() and (levels[:, -1] == t).all() and (levels.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("t", [[0, 5], [5, 1000], [-1, 5]])
def test_timesteps_without_an_inversion_raise(t: list[int]) -> None:
    with pytest.raises(ValueError) as error:
        inversion_levels(torch.tensor(t), num_steps=3, grid="subdivide")
    assert str(error.value) == f"timesteps must lie in [1, 999], got {t}"


@pytest.mark.parametrize(("options", "message"), [
    ({"num_steps": 0, "grid": "subdivide"}, "inversion_steps must be >= 1, got 0"),
    ({"num_steps": 1, "grid": "subdivde"},
     "unknown inversion grid 'subdivde'; known: subdivide, fixed_stride, released. Did you mean 'subdivide'?"),
])
def test_unusable_grid_options_raise(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        inversion_levels(torch.tensor([5]), **options)
    assert str(error.value) == message


@pytest.mark.parametrize(("options", "message"), [
    ({"labels": "sorce"}, "unknown label convention 'sorce'; known: source, target. Did you mean 'source'?"),
    ({"refine": "hein"}, "unknown refinement 'hein'; known: none, final, every_average, heun, midpoint, renoise_every. "
     "Did you mean 'heun'?"),
])
def test_unknown_conventions_raise(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        invert(Recorder(), torch.ones(1, 1), torch.tensor([[-1, 5]]), path=PATH, **options)
    assert str(error.value) == message


def test_source_label_of_clean_latents_is_zero() -> None:
    assert source_label(torch.tensor([-1, 0, 7])).tolist() == [0, 0, 7]


def test_last_step_is_the_last_true_column() -> None:
    moves = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0]]).bool()
    assert last_step(moves).tolist() == [1, 2, 0]


# --- one exact model: constant noise ---

@pytest.mark.parametrize("grid", GRIDS_THAT_END_ON_T)
@pytest.mark.parametrize("labels", ["source", "target"])
@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("steps", [1, 4, 9, 50])
def test_constant_noise_lands_exactly_on_t(grid: str, labels: str, refine: str, steps: int) -> None:
    """METHODS 18.4: x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps and tau = eps, whatever the path."""
    x_0, eps = draw(6, 3), draw(6, 3, seed=1)
    levels = inversion_levels(TIMESTEPS, num_steps=steps, grid=grid)
    x_t = invert(lambda x, t, rows: eps[rows], x_0, levels, path=PATH, labels=labels, refine=refine)
    abar = TABLE[TIMESTEPS]
    assert torch.allclose(x_t, abar.sqrt()[:, None] * x_0 + (1 - abar).sqrt()[:, None] * eps, atol=1e-12)
    assert torch.allclose(PATH.target_of(x_t, x_0, TIMESTEPS), eps, atol=1e-11)


# --- golden table of METHODS 18.4 ---

GOLDEN = [
    (0.8, 101, 4, (-.0156, -.0125, -.0156), (+.0207, +.0209, +.0212)),
    (0.8, 501, 4, (-.1372, -.1136, -.1377), (+.1244, +.1327, +.1450)),
    (0.8, 501, 9, (-.0653, -.0599, -.0640), (+.0656, +.0671, +.0719)),
    (0.8, 501, 19, (-.0322, -.0309, -.0311), (+.0344, +.0347, +.0367)),
    (0.8, 901, 9, (-.1304, -.1281, -.1293), (+.1131, +.1143, +.1334)),
    (0.25, 501, 9, (-.1186, -.1162, -.0932), (+.0524, +.0579, +.0996)),
    (0.25, 901, 9, (-.2011, -.2004, -.1544), (+.0208, +.0231, +.1158)),
]


@pytest.mark.parametrize(("variance", "t", "steps", "source", "target"), GOLDEN)
def test_gaussian_golden_values(
    variance: float, t: int, steps: int, source: Sequence[float], target: Sequence[float]
) -> None:
    """Relative error against the exact ODE; columns none, final ReNoise, same-label average at every step."""
    for labels, row in (("source", source), ("target", target)):
        actual = [gaussian_error(variance, t, steps, labels=labels, refine=r) for r in REFINEMENTS[:3]]
        assert actual == pytest.approx(list(row), abs=1e-4)  # METHODS asks for 1e-3; its digits allow 1e-4


@pytest.mark.parametrize(("variance", "t", "steps", "expected"), [
    (0.8, 501, 4, -.0166), (0.8, 501, 9, -.0004), (0.8, 901, 9, -.0152), (0.25, 501, 9, -.0053), (0.25, 901, 9, -.0377),
])
def test_gaussian_golden_values_of_heun(variance: float, t: int, steps: int, expected: float) -> None:
    assert gaussian_error(variance, t, steps, refine="heun") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("labels", ["source", "target"])
@pytest.mark.parametrize("refine", ["none", "final", "every_average"])
def test_inversion_converges_at_first_order(labels: str, refine: str) -> None:
    """t = 960 is divisible by every N, so rounding of the levels does not disturb the halving of the error."""
    errors = [gaussian_error(0.8, 960, steps, labels=labels, refine=refine) for steps in (30, 60, 120)]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.25) and errors[1] / errors[2] == pytest.approx(2, abs=0.25)


def test_heun_beats_first_order_by_far() -> None:
    """METHODS 4.1 (d): 5 to 160 times smaller than plain source labels at N = 9, t >= 501."""
    for variance, t in ((0.8, 501), (0.8, 901), (0.25, 501), (0.25, 901)):
        assert 5 < gaussian_error(variance, t, 9) / gaussian_error(variance, t, 9, refine="heun") < 160


def test_heun_converges_at_second_order() -> None:
    """In y = x / sqrt(abar), sigma = sqrt(1 / abar - 1) the ODE is dy / dsigma = eps.

    eps = 2 y / (1 + sigma) has the solution y ~ (1 + sigma)^2. The levels start from 0, not from clean, so that the
    label of every prediction is exact: clean latents are asked under label 0, whose sigma is 0.029.
    """
    sigma = (1 / TABLE - 1).sqrt()
    exact = TABLE.sqrt() * (1 + sigma) ** 2

    def error(steps: int) -> float:
        x_t = invert(
            lambda x, t, rows: (2 / TABLE[t].sqrt() / (1 + sigma[t]))[:, None] * x, exact[0].view(1, 1),
            torch.arange(0, 961, 960 // steps)[None], path=PATH, refine="heun",
        )
        return x_t.item() / exact[960].item() - 1

    assert error(40) / error(80) == pytest.approx(4, abs=0.5) and error(80) / error(160) == pytest.approx(4, abs=0.3)


# --- refinements worked by hand, one step of a linear model ---

@pytest.mark.parametrize(("refine", "labels", "factors"), [
    ("none", "source", (0.1, None)), ("none", "target", (0.3, None)),
    ("final", "source", (0.1, "last 0.3")), ("final", "target", (0.3, "last 0.3")),
    ("every_average", "source", (0.1, "mean 0.1")), ("every_average", "target", (0.3, "mean 0.3")),
    ("heun", "source", (0.1, "mean 0.3")), ("heun", "target", (0.3, "mean 0.3")),
])
def test_one_step_by_hand(refine: str, labels: str, factors: tuple[float, str | None]) -> None:
    """eps(x, label) = f(label) x with f(0) = 0.1, f(500) = 0.3, from clean x_0 = 2 to level 500.

    T(e) = a 2 + b e, a = sqrt(abar), b = sqrt(1 - abar). First e_1 = f(first label) 2, y = T(e_1). Then Eq. 14 takes
    e_2 = f(500) y alone; the averages take (e_1 + e_2) / 2, e_2 under the step's own label (released) or 500 (Heun).
    """
    a, b = np.sqrt(references.abar_at(500)), np.sqrt(1 - references.abar_at(500))
    first, then = factors
    e = first * 2
    if then is not None:
        kind, second = then.split()
        e_2 = float(second) * (a * 2 + b * e)
        e = e_2 if kind == "last" else (e + e_2) / 2
    f = {0: 0.1, 500: 0.3}
    x_t = invert(
        lambda x, t, rows: f[t.item()] * x, torch.tensor([[2.0]]).double(), torch.tensor([[-1, 500]]),
        path=PATH, labels=labels, refine=refine,
    )
    assert x_t.item() == pytest.approx(a * 2 + b * e, abs=1e-13)


# --- round trip ---

@pytest.mark.parametrize("grid", ["subdivide", "fixed_stride", "released"])
@pytest.mark.parametrize("labels", ["source", "target"])
def test_denoising_with_the_stored_predictions_returns_x_0(grid: str, labels: str) -> None:
    """In float32. At level 999 the way back divides by sqrt(abar) = 0.068, so round-off 6e-8 grows to about 1e-5."""
    x_0, model = draw(6, 5, dtype=torch.float32), Recorder()
    levels = inversion_levels(TIMESTEPS, num_steps=9, grid=grid)
    x = invert(model, x_0, levels, path=PATH, labels=labels)
    assert (x - x_0).abs().max() > 0.5
    moving = [k for k in range(levels.shape[1] - 1) if (levels[:, k] != levels[:, k + 1]).any()]
    for k, rows, noise in reversed(list(zip(moving, model.rows, model.predictions, strict=True))):
        x[rows] = PATH.transfer(x[rows], noise, levels[rows, k + 1], levels[rows, k])
    assert x.dtype == torch.float32
    assert torch.allclose(x, x_0, atol=3e-5)


def test_input_is_left_alone() -> None:
    x_0 = draw(6, 2)
    before = x_0.clone()
    invert(Recorder(), x_0, inversion_levels(TIMESTEPS, num_steps=4, grid="subdivide"), path=PATH)
    assert torch.equal(x_0, before)


# --- batches ---

@pytest.mark.parametrize("grid", ["subdivide", "fixed_stride", "released"])
@pytest.mark.parametrize("refine", REFINEMENTS)
def test_batch_equals_its_rows_alone(grid: str, refine: str) -> None:
    x_0 = draw(6, 3)
    levels = inversion_levels(TIMESTEPS, num_steps=7, grid=grid)
    options = {"path": PATH, "refine": refine}
    together = invert(Recorder(), x_0, levels, **options)
    for i in range(6):
        alone_levels = inversion_levels(TIMESTEPS[i:i + 1], num_steps=7, grid=grid)

        def as_row_i(x: Tensor, t: Tensor, rows: Tensor, i: int = i) -> Tensor:
            return Recorder()(x, t, rows + i)

        alone = invert(as_row_i, x_0[i:i + 1], alone_levels, **options)
        assert torch.allclose(together[i:i + 1], alone, atol=1e-13)


@pytest.mark.parametrize("grid", ["subdivide", "fixed_stride", "released"])
@pytest.mark.parametrize("refine", REFINEMENTS)
def test_order_of_the_batch_does_not_matter(grid: str, refine: str) -> None:
    order, x_0 = torch.tensor([3, 5, 0, 2, 4, 1]), draw(6, 3)
    levels = inversion_levels(TIMESTEPS, num_steps=7, grid=grid)
    options = {"path": PATH, "refine": refine}
    straight = invert(Recorder(), x_0, levels, **options)
    shuffled = invert(lambda x, t, rows: Recorder()(x, t, order[rows]), x_0[order], levels[order], **options)
    assert torch.allclose(shuffled, straight[order], atol=1e-13)


# --- what the model is asked ---

@pytest.mark.parametrize("grid", ["subdivide", "fixed_stride", "released"])
@pytest.mark.parametrize("labels", ["source", "target"])
@pytest.mark.parametrize("refine", REFINEMENTS)
def test_no_label_is_ever_negative(grid: str, labels: str, refine: str) -> None:
    """D18: the released code passes -99 or -199 to the UNet."""
    model = Recorder()
    levels = inversion_levels(TIMESTEPS, num_steps=9, grid=grid)
    invert(model, draw(6, 2), levels, path=PATH, labels=labels, refine=refine)
    asked = torch.cat(model.labels)
    assert asked.min() >= 0 and asked.max() <= 999


def labels_asked(t: int, steps: int, **options: str) -> list[int]:
    model = Recorder()
    levels = inversion_levels(torch.tensor([t]), num_steps=steps, grid="subdivide")
    invert(model, draw(1, 2), levels, path=PATH, **options)
    return torch.cat(model.labels).tolist()


@pytest.mark.parametrize(("options", "expected"), [
    ({}, [0, 300, 600]), ({"labels": "target"}, [300, 600, 900]),
    ({"refine": "final"}, [0, 300, 600, 900]), ({"refine": "final", "labels": "target"}, [300, 600, 900, 900]),
    ({"refine": "every_average"}, [0, 0, 300, 300, 600, 600]), ({"refine": "heun"}, [0, 300, 300, 600, 600, 900]),
    ({"refine": "renoise_every"}, [300, 300, 600, 600, 900, 900]),
    ({"refine": "midpoint"}, [0, 132, 300, 489, 600, 809]),
])
def test_labels_of_each_convention(options: dict[str, str], expected: list[int]) -> None:
    """METHODS 4.1, levels clean, 300, 600, 900."""
    assert labels_asked(900, 3, **options) == expected


@pytest.mark.parametrize(("refine", "extra", "factor"), [
    ("none", 0, 1), ("final", 1, 1), ("every_average", 0, 2), ("heun", 0, 2), ("midpoint", 0, 2),
    ("renoise_every", 0, 2),
])
def test_number_of_predictions_of_each_sample(refine: str, extra: int, factor: int) -> None:
    """subdivide: N each; fixed_stride: ceil(t / ceil(1000 / N)); final adds one, averages double."""
    t, steps = torch.tensor([9, 112, 113, 500, 999]), 9
    for grid, expected in (("subdivide", [9] * 5), ("fixed_stride", [1, 1, 2, 5, 9])):
        model = Recorder()
        invert(model, draw(5, 2), inversion_levels(t, num_steps=steps, grid=grid), path=PATH, refine=refine)
        assert model.count(5) == [factor * n + extra for n in expected]


def test_subdivide_asks_fewer_predictions_where_t_is_smaller_than_n() -> None:
    """t = 1, N = 9: rounded levels are clean, 0, 0, 0, 0, 1, ...: two steps."""
    assert labels_asked(1, 9) == [0, 0]


@pytest.mark.parametrize(("num_steps", "calls"), [(9, 6.4), (4, 3.8)])
def test_released_grid_visits_as_many_points_as_documented(num_steps: int, calls: float) -> None:
    """METHODS 4.1: K = 6.4 (grid 10) and 3.8 (grid 5) on average over t."""
    levels = inversion_levels(torch.arange(1, 1000), num_steps=num_steps, grid="released")
    assert (levels.diff(dim=1) != 0).sum(dim=1).double().mean().item() == pytest.approx(calls, abs=0.05)
