"""Independent references in numpy float64, written from METHODS, not from the code under test."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from smpo.maths.path import EpsilonPath

NUM_TRAIN_TIMESTEPS = 1000
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def alphas_cumprod() -> np.ndarray:
    """alpha_bar of SD's scaled_linear schedule by a plain loop, shape (1000,)."""
    first, last = np.sqrt(0.00085), np.sqrt(0.012)
    product, table = 1.0, []
    for i in range(NUM_TRAIN_TIMESTEPS):
        beta = (first + (last - first) * i / (NUM_TRAIN_TIMESTEPS - 1)) ** 2
        product *= 1.0 - beta
        table.append(product)
    return np.array(table)


TABLE = torch.from_numpy(alphas_cumprod())
PATH = EpsilonPath(TABLE)


def abar_at(level: int) -> float:
    """alpha_bar of one level; 1 for the clean latent (-1)."""
    return 1.0 if level == -1 else float(TABLE[level])


def transfer(x: np.ndarray, eps: np.ndarray, a: int, b: int) -> np.ndarray:
    """DDIM between levels by way of the predicted x_0, not of the boxed formula's closed coefficients."""
    x_0 = (x - np.sqrt(1 - abar_at(a)) * eps) / np.sqrt(abar_at(a))
    return np.sqrt(abar_at(b)) * x_0 + np.sqrt(1 - abar_at(b)) * eps


def gaussian_model(variance: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Exact noise prediction for data N(0, variance): sqrt(1 - abar) / (abar variance + 1 - abar) x."""

    def predict(x: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        abar = TABLE[labels]
        return ((1 - abar).sqrt() / (abar * variance + 1 - abar)).to(x.dtype)[:, None] * x

    return predict


def gaussian_solution(variance: float, t: int) -> float:
    """Exact probability-flow solution at level t from x_0 = 1."""
    return np.sqrt((abar_at(t) * variance + 1 - abar_at(t)) / variance)


def released_levels(t: int, set_timesteps: int) -> list[int]:
    """Levels that the released loop passes for t >= 1 under diffusers 0.20, clean latents being level 0 (METHODS 3.3).

    Labels are -stride + 1, 1, 1 + stride, ...; all strictly below t are visited, each moves one stride up.
    """
    stride = NUM_TRAIN_TIMESTEPS // set_timesteps
    labels = [1 - stride + stride * i for i in range(set_timesteps)]
    return [0] + [label + stride for label in labels if label < t]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def smpo_loss(errors: np.ndarray, p: np.ndarray, *, beta: float, gamma: float) -> np.ndarray:
    """Eq. 15-16 transcribed: rows of `errors` are L_w, L_l, L_ref_w, L_ref_l; alpha = gamma p; code beta with 1/2."""
    l_w, l_l, ref_w, ref_l = errors
    alpha = gamma * p
    inside = -(2 * alpha - gamma) * 0.5 * beta * ((l_w - ref_w) - (l_l - ref_l))
    return -np.log(sigmoid(inside))


def margin_of(errors: np.ndarray) -> np.ndarray:
    """Rows L_w, L_l, L_ref_w, L_ref_l -> how much more than the reference the policy prefers the winner."""
    l_w, l_l, ref_w, ref_l = errors
    return (l_l - ref_l) - (l_w - ref_w)


def ipo_loss(errors: np.ndarray, p: np.ndarray, *, beta: float) -> np.ndarray:
    """diffusers' (margin - 1 / (2 beta_d))^2, beta_d = beta / 2, times beta_d^2, for both outcomes; less p (1 - p)."""
    def hard(margin: np.ndarray) -> np.ndarray:
        return (beta / 2) ** 2 * (margin - 1 / beta) ** 2

    margin = margin_of(errors)
    return p * hard(margin) + (1 - p) * hard(-margin) - p * (1 - p)


def cdpo_loss(errors: np.ndarray, p: np.ndarray, *, beta: float) -> np.ndarray:
    """Cross-entropy of a Bernoulli(p) against the model's probability sigmoid(beta / 2 margin)."""
    likely = sigmoid(beta / 2 * margin_of(errors))
    return -(p * np.log(likely) + (1 - p) * np.log(1 - likely))


def linear_loss(errors: np.ndarray, p: np.ndarray, *, beta: float, eta: float = 1e-3) -> np.ndarray:
    """The published lines, d = (L_w - L_l) - (ref_w - ref_l), averaged over both outcomes of a soft label."""
    l_w, l_l, ref_w, ref_l = errors

    def hard(win: np.ndarray, lose: np.ndarray, ref_win: np.ndarray, ref_lose: np.ndarray) -> np.ndarray:
        ratio = 0.2 * beta * ((win - lose) - (ref_win - ref_lose)) + 0.5
        return np.clip(ratio, eta, 1 - eta) * (win - lose)

    return p * hard(l_w, l_l, ref_w, ref_l) + (1 - p) * hard(l_l, l_w, ref_l, ref_w)


def mapo_loss(l_w: np.ndarray, l_l: np.ndarray, *, beta: float, temperature: float, snr: float) -> np.ndarray:
    """METHODS 9.1 as printed, errors away from 0."""
    def f(error: np.ndarray) -> np.ndarray:
        return snr * error / (np.exp(snr * error) - 1)

    return l_w - beta * np.log(sigmoid(temperature * (f(l_w) - f(l_l))))


def kto_loss(
    errors: np.ndarray, desirable: np.ndarray, *, beta: float, k: float | None = None, utility: str = "kahneman-tversky"
) -> np.ndarray:
    """METHODS 8.2: rows of `errors` are L, L_ref; k is taken over all images unless given."""
    g = -(errors[0] - errors[1])
    k = max(0.0, g.mean()) if k is None else k
    h = sigmoid(np.where(desirable, 1, -1) * beta * (g - k))
    return {"kahneman-tversky": 1 - h, "loss-averse": -np.log(h), "risk-seeking": np.log(1 - h)}[utility]


def softmax_of_scaled(r_w: float, r_l: float, low: float, high: float, *, offset: str) -> float:
    """alpha / gamma by Eq. 11 (offset "max", the paper; "min", the code) and Eq. 12, literally."""
    shift = {"max": high, "min": low}[offset]
    r_w, r_l = (r_w - shift) / (high - low), (r_l - shift) / (high - low)
    return np.exp(r_w) / (np.exp(r_w) + np.exp(r_l))
