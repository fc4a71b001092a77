"""DDIM inversion in few steps and its ReNoise refinements (Eq. 13-14), exact and dense in the batch.

The printed Eq. 2, 13 and 14 lack a factor sqrt(alpha_bar_t) on the noise coefficient (x 8.45 at 801 -> 901) and drop
the bar of alpha; `ddim_transfer` is the correct map (METHODS 2.3).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from smpo.checks import check_known, check_same_shape
from smpo.errors import ConfigError
from smpo.maths.schedule import CLEAN, alpha_bar, per_sample
from smpo.transfer import send

PredictRows = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (n, ...), timestep labels (n,), indices of these n rows in the batch (n,)) -> predicted noise (n, ...).

Labels and indices are on the CPU: the whole plan of an inversion follows from timesteps, and is made there.
"""

GRIDS = ("subdivide", "fixed_stride", "released")
REFINEMENTS = ("none", "final", "every_average", "heun")


def ddim_transfer(x: Tensor, noise: Tensor, abar_from: Tensor, abar_to: Tensor) -> Tensor:
    """x moved between noise levels along a noise prediction (correct form of Eq. 13), shape (n, ...).

    x_b = r x_a + (sqrt(1 - abar_b) - r sqrt(1 - abar_a)) eps with r = sqrt(abar_b / abar_a). Deterministic (eta = 0),
    in both directions.

    Args:
        x: latents at level a, shape (n, ...).
        noise: eps, shape (n, ...).
        abar_from: alpha_bar of level a, shape (n,), in (0, 1].
        abar_to: alpha_bar of level b, shape (n,), in (0, 1].
    """
    check_same_shape(x=x, noise=noise)
    ratio = (abar_to / abar_from).sqrt()
    noise_coefficient = (1 - abar_to).sqrt() - ratio * (1 - abar_from).sqrt()
    return per_sample(ratio, x) * x + per_sample(noise_coefficient, x) * noise


def inversion_levels(timesteps: Tensor, *, num_steps: int, grid: str, num_train_timesteps: int = 1000) -> Tensor:
    """Levels from clean to noisy of each sample, shape (B, K + 1), int64; a repeated level is no step.

    subdivide: `num_steps` equal parts of [0, t]; every sample with t >= num_steps takes as many steps.
    fixed_stride: multiples of s = ceil(T / num_steps), the last cut at t; "at most" num_steps steps, about half of
        that on average over t.
    released: the grid 0, 1, 1 + s, 1 + 2 s, ... with s = T // (num_steps + 1), ending on its first level >= t (its
        last for larger t), as the released code under diffusers 0.20 does: the end level is *not* t, and clean latents
        count as level 0.

    Args:
        timesteps: t, integers in [1, T), shape (B,), on the CPU.
        num_steps: N >= 1.

    Raises:
        ConfigError: an unknown grid or N < 1.
        ValueError: a timestep outside [1, T).
    """
    check_known(grid, GRIDS, what="inversion grid")
    if num_steps < 1:
        raise ConfigError(f"inversion_steps must be >= 1, got {num_steps}")
    if not (timesteps.min() >= 1 and timesteps.max() < num_train_timesteps):
        raise ValueError(f"timesteps must lie in [1, {num_train_timesteps - 1}], got {timesteps.tolist()}")
    steps = torch.arange(1, num_steps + 1)
    ends = timesteps[:, None]
    clean = torch.full_like(ends, CLEAN)
    if grid == "subdivide":
        return torch.cat([clean, torch.round(ends.double() * steps / num_steps).long()], dim=1)
    if grid == "fixed_stride":
        stride = -(-num_train_timesteps // num_steps)
        return torch.cat([clean, torch.minimum(steps * stride, ends)], dim=1)
    stride = num_train_timesteps // (num_steps + 1)
    marks = 1 + stride * torch.arange(num_steps + 1)
    reached = marks[torch.searchsorted(marks, timesteps.contiguous()).clamp(max=num_steps)]
    return torch.cat([torch.zeros_like(ends), torch.minimum(marks, reached[:, None])], dim=1)


def source_label(levels: Tensor) -> Tensor:
    """Timestep label of a prediction made at `levels`: the level itself, 0 for clean latents (never negative)."""
    return levels.clamp(min=0)


def invert(
    predict: PredictRows, x_0: Tensor, levels: Tensor, *, alphas_cumprod: Tensor, labels: str = "source",
    refine: str = "none",
) -> Tensor:
    """Latents that the model itself would pass through at `levels[:, -1]` (Eq. 13, 14), shape (B, ...).

    Only samples that still move in a step are evaluated. Refinements:
        none: plain DDIM inversion.
        final: the last step is taken again from its start with the noise predicted at its end (ReNoise, Eq. 14).
        every_average: at every step, the mean of two predictions under one label (the released code's variant).
        heun: at every step, the mean of the predictions at its start and its end, each under its own label.

    Args:
        predict: noise prediction for some rows of the batch.
        x_0: clean latents, shape (B, ...), on any device.
        levels: shape (B, K + 1), see `inversion_levels`.
        alphas_cumprod: table, shape (T,).
        labels: "source" (the level a step starts from, paper) or "target" (the one it ends on, ReNoise).
        refine: see above.
    """
    check_known(labels, ("source", "target"), what="label convention")
    check_known(refine, REFINEMENTS, what="refinement")
    x = x_0.clone()
    moves = levels[:, :-1] != levels[:, 1:]
    last = last_step(moves)
    for step in range(moves.shape[1]):
        rows = moves[:, step].nonzero().flatten()
        if not len(rows):
            continue
        start, end = levels[rows, step], levels[rows, step + 1]
        label = source_label(start) if labels == "source" else end
        abar_from, abar_to = alpha_bar(alphas_cumprod, start), alpha_bar(alphas_cumprod, end)
        moving = send(rows, x.device)
        x_start = x[moving]
        noise = predict(x_start, label, rows)
        x_end = ddim_transfer(x_start, noise, abar_from, abar_to)
        if refine == "every_average":
            noise = 0.5 * (noise + predict(x_end, label, rows))
            x_end = ddim_transfer(x_start, noise, abar_from, abar_to)
        elif refine == "heun":
            noise = 0.5 * (noise + predict(x_end, end, rows))
            x_end = ddim_transfer(x_start, noise, abar_from, abar_to)
        elif refine == "final":
            ending = (last[rows] == step).nonzero().flatten()
            if len(ending):
                there = send(ending, x.device)
                again = predict(x_end[there], end[ending], rows[ending])
                x_end[there] = ddim_transfer(x_start[there], again, abar_from[ending], abar_to[ending])
        x[moving] = x_end
    return x


def invert_chain(
    predict: PredictRows, x_0: Tensor, levels: Tensor, *, alphas_cumprod: Tensor, renoise: bool
) -> Tensor:
    """The latents at *every* level of one DDIM inversion, each with its ReNoise step, shape (B, K, ...).

    The chain goes on from the latents without ReNoise, so that the prediction which takes a step again (Eq. 14) is also
    that from which the next one starts: K + 1 evaluations for K latents, or K without ReNoise. The latents at level k
    are those of `invert` over the first k steps, labels "source".

    Args:
        predict: noise prediction for some rows of the batch.
        x_0: clean latents, shape (B, ...).
        levels: rising, shape (B, K + 1), the first clean.
        alphas_cumprod: table, shape (T,).
        renoise: whether each step is taken again with the noise predicted at its end.
    """
    rows, abar = torch.arange(len(x_0)), alpha_bar(alphas_cumprod, levels)
    x, found, num_steps = x_0, [], levels.shape[1] - 1
    noise = predict(x, source_label(levels[:, 0]), rows)
    for step in range(num_steps):
        ends = abar[:, step], abar[:, step + 1]
        start, x = x, ddim_transfer(x, noise, *ends)
        if renoise or step + 1 < num_steps:
            noise = predict(x, levels[:, step + 1], rows)
        found.append(ddim_transfer(start, noise, *ends) if renoise else x)
    return torch.stack(found, dim=1)


def last_step(moves: Tensor) -> Tensor:
    """Index of the last True in each row of `moves`, shape (B, K) -> (B,)."""
    positions = torch.arange(moves.shape[1])
    return torch.where(moves, positions, -1).max(dim=1).values
