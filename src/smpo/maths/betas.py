"""alpha-bar tables of the published noise schedules, by their names in diffusers; float64."""

import math

import torch
from torch import Tensor

MAX_BETA = 0.999  # of the cosine schedule (Nichol & Dhariwal 2021, section 3.2), which has beta_T = 1 without


def alphas_cumprod_of_betas(betas: Tensor) -> Tensor:
    """alpha_bar_t = prod_{i <= t} (1 - beta_i), shape of `betas` (T,), float64."""
    return torch.cumprod(1 - betas.double(), dim=0)


def scaled_linear_alphas_cumprod(
    num_train_timesteps: int = 1000, *, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Tensor:
    """alpha_bar table of Stable Diffusion's schedule, shape (T,), float64.

    beta_i is the square of a linear ramp from sqrt(beta_start) to sqrt(beta_end).
    """
    ramp = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float64)
    return alphas_cumprod_of_betas(ramp.square())


def linear_alphas_cumprod(num_train_timesteps: int, *, beta_start: float, beta_end: float) -> Tensor:
    """alpha_bar table of betas on a straight line (Ho et al. 2020, section 4), shape (T,), float64."""
    return alphas_cumprod_of_betas(torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float64))


def cosine_alphas_cumprod(num_train_timesteps: int) -> Tensor:
    """alpha_bar table of diffusers' `squaredcos_cap_v2`, shape (T,), float64.

    beta_i = min(1 - f((i + 1) / T) / f(i / T), 0.999), f(u) = cos^2(pi / 2 (u + 0.008) / 1.008) (Nichol & Dhariwal
    2021, Eq. 17; the cap is theirs).
    """
    u = torch.arange(num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
    f = torch.cos((u + 0.008) / 1.008 * math.pi / 2).square()
    return alphas_cumprod_of_betas((1 - f[1:] / f[:-1]).clamp(max=MAX_BETA))


def zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """The table with alpha_bar = 0 at its last level and the first one kept (Lin et al. 2024, Algorithm 1), shape (T,).

    sqrt(alpha_bar) is shifted and stretched, so that no image shines through the noise where sampling starts.
    """
    roots = alphas_cumprod.sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])).square()


def named_alphas_cumprod(name: str, num_train_timesteps: int, *, beta_start: float, beta_end: float) -> Tensor:
    """The table of the schedule that diffusers calls `name`, shape (T,), float64; KeyError for an unknown name."""
    if name == "squaredcos_cap_v2":
        return cosine_alphas_cumprod(num_train_timesteps)
    table = {"linear": linear_alphas_cumprod, "scaled_linear": scaled_linear_alphas_cumprod}[name]
    return table(num_train_timesteps, beta_start=beta_start, beta_end=beta_end)
