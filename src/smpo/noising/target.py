"""What the networks are to predict of latents that an inversion, or a store of them, gives."""

from torch import Tensor

from smpo.core.records import NoisyPair, flatten_sides, unflatten_sides
from smpo.maths.schedule import alpha_bar, target_noise


def noise_between(x_0: Tensor, x_t: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> NoisyPair:
    """The noisy pair of given latents: its target is the noise that `x_t` really has over `x_0` (tau_t of Eq. 16).

    Args:
        x_0: clean latents, shape (S, B, C, H, W).
        x_t: noised latents, shape (S, B, C, H, W).
        timesteps: their labels and the level of their tau, shape (B,), on the CPU.
        alphas_cumprod: table, shape (T,).
    """
    sides = len(x_t)
    tau = target_noise(flatten_sides(x_t), flatten_sides(x_0), alpha_bar(alphas_cumprod, timesteps.repeat(sides)))
    return NoisyPair(x_t, unflatten_sides(tau, sides), timesteps)
