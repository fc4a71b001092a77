"""Gaussian paths from an image to noise: x_t = alpha x_0 + sigma eps over a table of noise levels.

A *level* is an integer: CLEAN (-1) is the clean latent, level t in [0, T) is row t of the table. Levels and tables are
on the CPU, where looking at them waits for nothing; tables are float64, because in fp16 1 - alpha_bar_t is off by 15 %
at t = 0 (the released code computes it so).

What a model predicts belongs to its path: it is what training regresses (`target`, `target_of`) and what an inversion
follows (`transfer`). Nothing is converted to noise first, which would divide by alpha: 0 at the last level of a
schedule with zero terminal SNR.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from smpo.core.checks import check_same_shape
from smpo.core.transfer import send

CLEAN = -1


def per_sample(coefficient: Tensor, x: Tensor) -> Tensor:
    """`coefficient`, shape (n,), where `x` is, in its dtype and shaped to broadcast over it, shape (n, ...)."""
    return send(coefficient.to(x.dtype), x.device).view(-1, *[1] * (x.ndim - 1))


class GaussianPath(ABC):
    """Seam: how latents become noise, and what a model predicts on the way.

    Attributes:
        kind: family of paths; a noising lists those that it fits.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def num_levels(self) -> int:
        """T: the number of noise levels."""

    @abstractmethod
    def mixture(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at each level, shape of `levels`, float64: (1, 0) for CLEAN.

        Raises:
            ValueError: a level lies outside the table.
        """

    @abstractmethod
    def target(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What a model is to predict at `mix(x_0, noise, levels)`, shape (n, ...)."""

    @abstractmethod
    def target_of(self, x_t: Tensor, x_0: Tensor, levels: Tensor) -> Tensor:
        """What a model is to predict at given latents x_t, if x_0 is their clean image, shape (n, ...).

        It is `target` for the noise that x_t really has over x_0, whatever way x_t was made.

        Args:
            x_t: noised latents, shape (n, ...).
            x_0: clean latents, shape (n, ...).
            levels: at which x_t lies, in [0, T), shape (n,).
        """

    @abstractmethod
    def transfer(self, x: Tensor, output: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """x moved between noise levels along a model's output, shape (n, ...): exact where the output is constant.

        Args:
            x: latents at level `start`, shape (n, ...).
            output: what the model predicts, shape (n, ...).
            start: levels, shape (n,).
            end: levels, shape (n,), noisier or cleaner.
        """

    @abstractmethod
    def progress(self, levels: Tensor) -> Tensor:
        """How far along the path each level lies, shape of `levels`: 0 at CLEAN, rising.

        A transfer is half done where this number is half-way.
        """

    def mix(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x_t = alpha x_0 + sigma eps, shape (n, ...).

        Args:
            x_0: clean latents, shape (n, ...).
            noise: eps, shape (n, ...).
            levels: of each sample, shape (n,).
        """
        check_same_shape(x_0=x_0, noise=noise)
        alpha, sigma = self.mixture(levels)
        return per_sample(alpha, x_0) * x_0 + per_sample(sigma, x_0) * noise

    def half_way(self, start: Tensor, end: Tensor) -> Tensor:
        """The level nearest to half-way between two in `progress`, shape (n,).

        It lies above `start` and at most on `end`: of neighbouring levels, it is the end.

        Args:
            start: levels, CLEAN or [0, T), shape (n,).
            end: levels above them, shape (n,).
        """
        table = self.progress(torch.arange(self.num_levels))
        middle = (self.progress(start) + self.progress(end)) / 2
        above = torch.searchsorted(table, middle).clamp(max=self.num_levels - 1)
        below = (above - 1).clamp(min=0)
        nearest = torch.where(middle - table[below] < table[above] - middle, below, above)
        return torch.minimum(torch.maximum(nearest, start + 1), end)


@dataclass(frozen=True, eq=False)
class DiffusionPath(GaussianPath):
    """Variance-preserving diffusion: alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar).

    Attributes:
        alphas_cumprod: alpha_bar of each level, shape (T,), float64, falling; 0 at the last one where the schedule has
            zero terminal SNR.
    """

    kind: ClassVar[str] = "diffusion"
    alphas_cumprod: Tensor

    @property
    def num_levels(self) -> int:
        """T: the number of noise levels."""
        return len(self.alphas_cumprod)

    def alpha_bar(self, levels: Tensor) -> Tensor:
        """alpha_bar of each level, shape of `levels`, float64; 1 for CLEAN.

        Raises:
            ValueError: a level lies outside the table.
        """
        if levels.numel() and not (levels.min() >= CLEAN and levels.max() < self.num_levels):
            bounds = f"[{int(levels.min())}, {int(levels.max())}]"
            raise ValueError(f"levels must lie in [{CLEAN}, {self.num_levels - 1}], got {bounds}")
        table = torch.cat([self.alphas_cumprod, self.alphas_cumprod.new_ones(1)])  # CLEAN = -1 indexes the appended 1
        return table[levels]

    def mixture(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at each level, shape of `levels`, float64."""
        abar = self.alpha_bar(levels)
        return abar.sqrt(), (1 - abar).sqrt()

    def posterior_variance(self, start: Tensor, end: Tensor) -> Tensor:
        """Variance of DDPM's posterior q(x_start | x_end, x_0) (Ho et al. 2020, Eq. 7), shape (n,).

        (1 - abar_start) / (1 - abar_end) (1 - abar_end / abar_start): zero from a clean latent and over no step at all.

        Args:
            start: the cleaner levels, shape (n,).
            end: the noisier levels, in [0, T), shape (n,).
        """
        check_same_shape(start=start, end=end)
        abar_start, abar_end = self.alpha_bar(start), self.alpha_bar(end)
        return (1 - abar_start) / (1 - abar_end) * (1 - abar_end / abar_start)


class EpsilonPath(DiffusionPath):
    """Diffusion whose model predicts the noise eps (Ho et al. 2020): SD1.x, SDXL."""

    def target(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The noise."""
        return noise

    def target_of(self, x_t: Tensor, x_0: Tensor, levels: Tensor) -> Tensor:
        """tau_t = (x_t - alpha x_0) / sigma, shape (n, ...): Eq. 16's regression target.

        `levels` must be those at which `x_t` really lies; the released code takes others (METHODS D13).
        """
        check_same_shape(x_t=x_t, x_0=x_0)
        alpha, sigma = self.mixture(levels)
        return (x_t - per_sample(alpha, x_t) * x_0) / per_sample(sigma, x_t)

    def transfer(self, x: Tensor, output: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """x moved along a noise prediction by a DDIM step with eta = 0 (correct form of Eq. 13), shape (n, ...).

        x_b = r x_a + (sigma_b - r sigma_a) eps with r = alpha_b / alpha_a, which must not be 0.
        """
        check_same_shape(x=x, output=output)
        abar_start, abar_end = self.alpha_bar(start), self.alpha_bar(end)
        ratio = (abar_end / abar_start).sqrt()
        noise_coefficient = (1 - abar_end).sqrt() - ratio * (1 - abar_start).sqrt()
        return per_sample(ratio, x) * x + per_sample(noise_coefficient, x) * output

    def progress(self, levels: Tensor) -> Tensor:
        """sigma / alpha: d(x / alpha) / d(sigma / alpha) = eps."""
        return (1 / self.alpha_bar(levels) - 1).sqrt()


class VPath(DiffusionPath):
    """Diffusion whose model predicts v = alpha eps - sigma x_0 (Salimans & Ho 2022): SD2.1, NoobAI-XL's v models.

    On the circle (alpha, sigma) = (cos phi, sin phi) v is the velocity dx / dphi. So a transfer is a rotation by
    phi_b - phi_a: no division, finite also where alpha = 0. An error in v is 1 / alpha_bar times the same model's
    error in eps.
    """

    def target(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """v = alpha eps - sigma x_0, shape (n, ...)."""
        check_same_shape(x_0=x_0, noise=noise)
        alpha, sigma = self.mixture(levels)
        return per_sample(alpha, x_0) * noise - per_sample(sigma, x_0) * x_0

    def target_of(self, x_t: Tensor, x_0: Tensor, levels: Tensor) -> Tensor:
        """v of the noise tau_t of Eq. 16, shape (n, ...): alpha tau_t - sigma x_0 = (alpha x_t - x_0) / sigma."""
        check_same_shape(x_t=x_t, x_0=x_0)
        alpha, sigma = self.mixture(levels)
        return (per_sample(alpha, x_t) * x_t - x_0) / per_sample(sigma, x_t)

    def transfer(self, x: Tensor, output: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """x rotated from phi_a to phi_b: x_b = cos(phi_b - phi_a) x_a + sin(phi_b - phi_a) v, shape (n, ...).

        It is the DDIM step with eta = 0 of the same model's noise prediction.
        """
        check_same_shape(x=x, output=output)
        (alpha_a, sigma_a), (alpha_b, sigma_b) = self.mixture(start), self.mixture(end)
        cosine, sine = alpha_a * alpha_b + sigma_a * sigma_b, sigma_b * alpha_a - sigma_a * alpha_b
        return per_sample(cosine, x) * x + per_sample(sine, x) * output

    def progress(self, levels: Tensor) -> Tensor:
        """The angle phi = atan2(sigma, alpha)."""
        alpha, sigma = self.mixture(levels)
        return torch.atan2(sigma, alpha)


DIFFUSION_PATHS: dict[str, type[DiffusionPath]] = {"epsilon": EpsilonPath, "v_prediction": VPath}
"""What a model predicts, in diffusers' words -> the path."""
