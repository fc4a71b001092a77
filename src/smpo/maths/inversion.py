"""DDIM inversion in few steps and its refinements (ReNoise, Eq. 14, and others), exact and dense in the batch.

The printed Eq. 2, 13 and 14 lack a factor sqrt(alpha_bar_t) on the noise coefficient (x 8.45 at 801 -> 901) and drop
the bar of alpha; `ddim_transfer` is the correct map (METHODS 2.3).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smpo.core.checks import check_known, check_same_shape
from smpo.core.errors import ConfigError
from smpo.core.transfer import send
from smpo.maths.schedule import CLEAN, alpha_bar, per_sample

PredictRows = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (n, ...), timestep labels (n,), indices of these n rows in the batch (n,)) -> predicted noise (n, ...).

Labels and indices are on the CPU: the whole plan of an inversion follows from timesteps, and is made there.
"""

GRIDS = ("subdivide", "fixed_stride", "released")


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


@dataclass(frozen=True)
class Step:
    """One step of an inversion, for the rows that still move in it.

    Attributes:
        predict: noise prediction for some rows of the batch.
        x: latents where the step starts, shape (n, ...).
        start: their levels, shape (n,), on the CPU.
        end: the levels where it ends, shape (n,).
        rows: the rows' indices in the batch, shape (n,).
        ends: whether it is the last step of each row, shape (n,), bool.
        alphas_cumprod: table, shape (T,).
        labels: "source" or "target", see `invert`.
    """

    predict: PredictRows
    x: Tensor
    start: Tensor
    end: Tensor
    rows: Tensor
    ends: Tensor
    alphas_cumprod: Tensor
    labels: str

    def first_label(self) -> Tensor:
        """Label of the prediction at the start, by the convention; shape (n,)."""
        return source_label(self.start) if self.labels == "source" else self.end

    def noise(self, x: Tensor, label: Tensor) -> Tensor:
        """The noise that the model predicts of all rows, shape (n, ...)."""
        return self.predict(x, label, self.rows)

    def along(self, noise: Tensor, to: Tensor | None = None) -> Tensor:
        """The latents at `to` (None is the end of the step) along a noise prediction, shape (n, ...)."""
        abar = (alpha_bar(self.alphas_cumprod, levels) for levels in (self.start, self.end if to is None else to))
        return ddim_transfer(self.x, noise, *abar)


Refine = Callable[[Step], Tensor]
"""Latents where a step ends, shape (n, ...)."""


def plain(step: Step) -> Tensor:
    """One prediction a step (Eq. 13)."""
    return step.along(step.noise(step.x, step.first_label()))


def final(step: Step) -> Tensor:
    """The last step of each row again from its start, with the noise predicted at its end (Eq. 14): SmPO's."""
    x_end = plain(step)
    ending = step.ends.nonzero().flatten()
    if len(ending):
        there, abar = send(ending, x_end.device), (
            alpha_bar(step.alphas_cumprod, levels[ending]) for levels in (step.start, step.end)
        )
        again = step.predict(x_end[there], step.end[ending], step.rows[ending])
        x_end[there] = ddim_transfer(step.x[there], again, *abar)
    return x_end


def every_average(step: Step) -> Tensor:
    """The mean of two predictions under one label, the second at the end (the released code's variant)."""
    return _mean_of_both_ends(step, step.first_label())


def heun(step: Step) -> Tensor:
    """The mean of the predictions at the start and at the end, each under its own label: second order."""
    return _mean_of_both_ends(step, step.end)


def midpoint(step: Step) -> Tensor:
    """The prediction half-way, at latents half a step along the first prediction: second order.

    Half-way is the row of the table nearest to it (`half_way`), whose own alpha_bar is taken: a rounded level costs
    accuracy, never consistency. The first prediction is made under the label of the start, whatever the convention.
    """
    middle = half_way(step.alphas_cumprod, step.start, step.end)
    x_middle = step.along(step.noise(step.x, source_label(step.start)), middle)
    return step.along(step.noise(x_middle, middle))


def renoise_every(step: Step, *, rounds: int = 1, averaged: int = 1) -> Tensor:
    """ReNoise at every step (Garibi et al. 2024, Algorithm 1): a fixed-point iteration for the exact inverse step.

    x_b^(k+1) = T(x_a, eps(x_b^(k), b)) from x_b^(0) = x_a, always from the start x_a, always under the label of the
    end; the limit is the latent that a DDIM step b -> a brings back to x_a. rounds = 0 is plain inversion with target
    labels. As DDIM's step is affine in eps, the paper's mean of latents is the step along the mean of predictions.

    Args:
        step: the step.
        rounds: times that a first estimate is taken again, >= 0; rounds + 1 evaluations.
        averaged: the step goes along the mean of the last so many predictions, in [1, rounds + 1].
    """
    predictions = [step.noise(step.x, step.end)]
    for _ in range(rounds):
        predictions.append(step.noise(step.along(predictions[-1]), step.end))
    return step.along(torch.stack(predictions[-averaged:]).mean(dim=0) if averaged > 1 else predictions[-1])


STEPS: dict[str, Refine] = {
    "none": plain, "final": final, "every_average": every_average, "heun": heun, "midpoint": midpoint,
    "renoise_every": renoise_every,
}
REFINEMENTS = tuple(STEPS)


def invert(
    predict: PredictRows, x_0: Tensor, levels: Tensor, *, alphas_cumprod: Tensor, labels: str = "source",
    refine: str | Refine = "none",
) -> Tensor:
    """Latents that the model itself would pass through at `levels[:, -1]` (Eq. 13, 14), shape (B, ...).

    Only samples that still move in a step are evaluated.

    Args:
        predict: noise prediction for some rows of the batch.
        x_0: clean latents, shape (B, ...), on any device.
        levels: shape (B, K + 1), see `inversion_levels`.
        alphas_cumprod: table, shape (T,).
        labels: of a step's first prediction, "source" (the level it starts from, paper) or "target" (the one it ends
            on); `midpoint` and `renoise_every` have labels of their own.
        refine: how a step is taken, a name of STEPS or such a function: `plain` ("none"), `final`, ...

    Raises:
        ConfigError: an unknown name.
    """
    check_known(labels, ("source", "target"), what="label convention")
    if isinstance(refine, str):
        check_known(refine, REFINEMENTS, what="refinement")
        refine = STEPS[refine]
    x = x_0.clone()
    moves = levels[:, :-1] != levels[:, 1:]
    last = last_step(moves)
    for number in range(moves.shape[1]):
        rows = moves[:, number].nonzero().flatten()
        if not len(rows):
            continue
        moving = send(rows, x.device)
        x[moving] = refine(Step(
            predict, x[moving], levels[rows, number], levels[rows, number + 1], rows, last[rows] == number,
            alphas_cumprod, labels,
        ))
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


def half_way(alphas_cumprod: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The level half-way between two in sigma = sqrt(1 / alpha_bar - 1), in which dx / dsigma = eps; shape (n,).

    The nearest row of the table above `start` and at most `end`: of neighbouring levels, the end.

    Args:
        alphas_cumprod: table, shape (T,).
        start: levels, CLEAN or [0, T), shape (n,).
        end: levels above them, shape (n,).
    """
    table, (near, far) = (1 / alphas_cumprod - 1).sqrt(), (
        (1 / alpha_bar(alphas_cumprod, level) - 1).sqrt() for level in (start, end)
    )
    middle = (near + far) / 2
    above = torch.searchsorted(table, middle).clamp(max=len(table) - 1)
    below = (above - 1).clamp(min=0)
    nearest = torch.where(middle - table[below] < table[above] - middle, below, above)
    return torch.minimum(torch.maximum(nearest, start + 1), end)


def _mean_of_both_ends(step: Step, second_label: Tensor) -> Tensor:
    noise = step.noise(step.x, step.first_label())
    return step.along(0.5 * (noise + step.noise(step.along(noise), second_label)))
