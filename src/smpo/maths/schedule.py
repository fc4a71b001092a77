"""The forward process: alpha-bar tables in float64 and the conversions that depend on them.

A *level* is an integer: CLEAN (-1) is the clean latent with alpha_bar = 1, level t in [0, T) has alpha_bar_t.
"""

import torch
from torch import Tensor

from smpo.core.checks import check_same_shape
from smpo.core.transfer import send

CLEAN = -1


def scaled_linear_alphas_cumprod(
    num_train_timesteps: int = 1000, *, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Tensor:
    """alpha_bar_t = prod_{i <= t} (1 - beta_i) of Stable Diffusion's schedule, shape (T,), float64.

    beta_i is the square of a linear ramp from sqrt(beta_start) to sqrt(beta_end). Float64, because in fp16
    1 - alpha_bar_t is off by 15 % at t = 0 (the released code computes it so).
    """
    ramp = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float64)
    return torch.cumprod(1 - ramp.square(), dim=0)


def alpha_bar(alphas_cumprod: Tensor, levels: Tensor) -> Tensor:
    """alpha_bar of each level, shape of `levels`, dtype of the table; 1 for CLEAN.

    Args:
        alphas_cumprod: table, shape (T,), on the CPU.
        levels: integers in {CLEAN} or [0, T), on the CPU, where looking at them waits for nothing.

    Raises:
        ValueError: a level lies outside the table.
    """
    if levels.numel() and not (levels.min() >= CLEAN and levels.max() < len(alphas_cumprod)):
        bounds = f"[{int(levels.min())}, {int(levels.max())}]"
        raise ValueError(f"levels must lie in [{CLEAN}, {len(alphas_cumprod) - 1}], got {bounds}")
    table = torch.cat([alphas_cumprod, alphas_cumprod.new_ones(1)])  # CLEAN = -1 indexes the appended 1
    return table[levels]


def per_sample(coefficient: Tensor, x: Tensor) -> Tensor:
    """`coefficient`, shape (n,), where `x` is, in its dtype and shaped to broadcast over it, shape (n, ...)."""
    return send(coefficient.to(x.dtype), x.device).view(-1, *[1] * (x.ndim - 1))


def add_noise(x_0: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps, shape (n, ...).

    Args:
        x_0: clean latents, shape (n, ...).
        noise: eps, shape (n, ...).
        abar: alpha_bar at the target level of each sample, shape (n,).
    """
    check_same_shape(x_0=x_0, noise=noise)
    return per_sample(abar.sqrt(), x_0) * x_0 + per_sample((1 - abar).sqrt(), x_0) * noise


def target_noise(x_t: Tensor, x_0: Tensor, abar: Tensor) -> Tensor:
    """tau_t = (x_t - sqrt(abar) x_0) / sqrt(1 - abar), shape (n, ...): Eq. 16's regression target.

    `abar` must be that of the level at which `x_t` really sits; the released code takes another one (METHODS D13).
    """
    check_same_shape(x_t=x_t, x_0=x_0)
    return (x_t - per_sample(abar.sqrt(), x_t) * x_0) / per_sample((1 - abar).sqrt(), x_t)


def posterior_variance(abar_from: Tensor, abar_to: Tensor) -> Tensor:
    """Variance of DDPM's posterior q(x_from | x_to, x_0) (Ho et al. 2020, Eq. 7), `from` the cleaner level; shape (n,).

    (1 - abar_from) / (1 - abar_to) (1 - abar_to / abar_from): zero from a clean latent and over no step at all.

    Args:
        abar_from: alpha_bar of the cleaner level, shape (n,), in (0, 1].
        abar_to: alpha_bar of the noisier level, shape (n,), in (0, 1).
    """
    check_same_shape(abar_from=abar_from, abar_to=abar_to)
    return (1 - abar_from) / (1 - abar_to) * (1 - abar_to / abar_from)


def v_to_noise(v: Tensor, x_t: Tensor, abar: Tensor) -> Tensor:
    """eps = sqrt(abar) v + sqrt(1 - abar) x_t of a v-prediction (Salimans & Ho 2022), shape (n, ...)."""
    check_same_shape(v=v, x_t=x_t)
    return per_sample(abar.sqrt(), v) * v + per_sample((1 - abar).sqrt(), v) * x_t
