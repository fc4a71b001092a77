"""DDIM inversion in few steps and its refinements (ReNoise, Eq. 14, and others), exact and dense in the batch.

A step goes along what the model predicts, by `GaussianPath.transfer`. The printed Eq. 2, 13 and 14 lack a factor
sqrt(alpha_bar_t) on the noise coefficient (x 8.45 at 801 -> 901) and drop the bar of alpha; `EpsilonPath.transfer` is
the correct map (METHODS 2.3).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smpo.core.checks import check_known
from smpo.core.errors import ConfigError
from smpo.core.transfer import send
from smpo.maths.path import CLEAN, GaussianPath

PredictRows = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (n, ...), timestep labels (n,), indices of these n rows in the batch (n,)) -> the model's output (n, ...).

Labels and indices are on the CPU: the whole plan of an inversion follows from timesteps, and is made there.
"""

GRIDS = ("subdivide", "fixed_stride", "released")


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


def chain_levels(timesteps: Tensor, chain_length: int) -> Tensor:
    """Levels of chains that start clean and pass through every timestep, shape (B / chain_length, chain_length + 1).

    Args:
        timesteps: of the rows of whole chains, one chain after the other, shape (B,), rising in each chain.
        chain_length: timesteps of a chain.

    Raises:
        ValueError: the rows are no whole chains of rising timesteps.
    """
    if len(timesteps) % chain_length:
        raise ValueError(f"a batch must hold chains of {chain_length}, got {len(timesteps)} examples")
    ends = timesteps.view(-1, chain_length)
    if not (ends.diff(dim=1) > 0).all():
        raise ValueError(f"the timesteps of a chain must rise, got {ends.tolist()}")
    return torch.cat([torch.full_like(ends[:, :1], CLEAN), ends], dim=1)


def source_label(levels: Tensor) -> Tensor:
    """Timestep label of a prediction made at `levels`: the level itself, 0 for clean latents (never negative)."""
    return levels.clamp(min=0)


@dataclass(frozen=True)
class Step:
    """One step of an inversion, for the rows that still move in it.

    Attributes:
        predict: what the model predicts for some rows of the batch.
        x: latents where the step starts, shape (n, ...).
        start: their levels, shape (n,), on the CPU.
        end: the levels where it ends, shape (n,).
        rows: the rows' indices in the batch, shape (n,).
        ends: whether it is the last step of each row, shape (n,), bool.
        path: what the model predicts, and how latents move along it.
        labels: "source" or "target", see `invert`.
    """

    predict: PredictRows
    x: Tensor
    start: Tensor
    end: Tensor
    rows: Tensor
    ends: Tensor
    path: GaussianPath
    labels: str

    def first_label(self) -> Tensor:
        """Label of the prediction at the start, by the convention; shape (n,)."""
        return source_label(self.start) if self.labels == "source" else self.end

    def output(self, x: Tensor, label: Tensor) -> Tensor:
        """What the model predicts of all rows, shape (n, ...)."""
        return self.predict(x, label, self.rows)

    def along(self, output: Tensor, to: Tensor | None = None) -> Tensor:
        """The latents at `to` (None is the end of the step) along a prediction, shape (n, ...)."""
        return self.path.transfer(self.x, output, self.start, self.end if to is None else to)


Refine = Callable[[Step], Tensor]
"""Latents where a step ends, shape (n, ...)."""


def plain(step: Step) -> Tensor:
    """One prediction a step (Eq. 13)."""
    return step.along(step.output(step.x, step.first_label()))


def final(step: Step) -> Tensor:
    """The last step of each row again from its start, along the prediction at its end (Eq. 14): SmPO's."""
    x_end = plain(step)
    ending = step.ends.nonzero().flatten()
    if len(ending):
        there, start, end = send(ending, x_end.device), step.start[ending], step.end[ending]
        again = step.predict(x_end[there], end, step.rows[ending])
        x_end[there] = step.path.transfer(step.x[there], again, start, end)
    return x_end


def every_average(step: Step) -> Tensor:
    """The mean of two predictions under one label, the second at the end (the released code's variant)."""
    return _mean_of_both_ends(step, step.first_label())


def heun(step: Step) -> Tensor:
    """The mean of the predictions at the start and at the end, each under its own label: second order."""
    return _mean_of_both_ends(step, step.end)


def midpoint(step: Step) -> Tensor:
    """The prediction half-way, at latents half a step along the first prediction: second order.

    Half-way is the row of the table nearest to it (`GaussianPath.half_way`), whose own alpha and sigma are taken: a
    rounded level costs accuracy, never consistency. The first prediction is made under the label of the start, whatever
    the convention.
    """
    middle = step.path.half_way(step.start, step.end)
    x_middle = step.along(step.output(step.x, source_label(step.start)), middle)
    return step.along(step.output(x_middle, middle))


def renoise_every(step: Step, *, rounds: int = 1, averaged: int = 1) -> Tensor:
    """ReNoise at every step (Garibi et al. 2024, Algorithm 1): a fixed-point iteration for the exact inverse step.

    x_b^(k+1) = T(x_a, f(x_b^(k), b)) from x_b^(0) = x_a, always from the start x_a, always under the label of the
    end; the limit is the latent that a DDIM step b -> a brings back to x_a. rounds = 0 is plain inversion with target
    labels. As a step is affine in the prediction f, the paper's mean of latents is the step along the mean of
    predictions.

    Args:
        step: the step.
        rounds: times that a first estimate is taken again, >= 0; rounds + 1 evaluations.
        averaged: the step goes along the mean of the last so many predictions, in [1, rounds + 1].
    """
    predictions = [step.output(step.x, step.end)]
    for _ in range(rounds):
        predictions.append(step.output(step.along(predictions[-1]), step.end))
    return step.along(torch.stack(predictions[-averaged:]).mean(dim=0) if averaged > 1 else predictions[-1])


STEPS: dict[str, Refine] = {
    "none": plain, "final": final, "every_average": every_average, "heun": heun, "midpoint": midpoint,
    "renoise_every": renoise_every,
}
REFINEMENTS = tuple(STEPS)


@torch.no_grad()
def invert(
    predict: PredictRows, x_0: Tensor, levels: Tensor, *, path: GaussianPath, labels: str = "source",
    refine: str | Refine = "none",
) -> Tensor:
    """Latents that the model itself would pass through at `levels[:, -1]` (Eq. 13, 14), shape (B, ...); no gradient.

    Only samples that still move in a step are evaluated.

    Args:
        predict: what the model predicts for some rows of the batch.
        x_0: clean latents, shape (B, ...), on any device.
        levels: shape (B, K + 1), see `inversion_levels`.
        path: what the model predicts, and how latents move along it.
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
            path, labels,
        ))
    return x


@torch.no_grad()
def invert_chain(
    predict: PredictRows, x_0: Tensor, levels: Tensor, *, path: GaussianPath, renoise: bool
) -> Tensor:
    """The latents at *every* level of one DDIM inversion, each with its ReNoise step, shape (B, K, ...).

    The chain goes on from the latents without ReNoise, so that the prediction which takes a step again (Eq. 14) is also
    that from which the next one starts: K + 1 evaluations for K latents, or K without ReNoise. The latents at level k
    are those of `invert` over the first k steps, labels "source".

    Args:
        predict: what the model predicts for some rows of the batch.
        x_0: clean latents, shape (B, ...).
        levels: rising, shape (B, K + 1), the first clean.
        path: what the model predicts, and how latents move along it.
        renoise: whether each step is taken again with the noise predicted at its end.
    """
    rows = torch.arange(len(x_0))
    x, latents, num_steps = x_0, [], levels.shape[1] - 1
    output = predict(x, source_label(levels[:, 0]), rows)
    for step in range(num_steps):
        ends = levels[:, step], levels[:, step + 1]
        start, x = x, path.transfer(x, output, *ends)
        if renoise or step + 1 < num_steps:
            output = predict(x, levels[:, step + 1], rows)
        latents.append(path.transfer(start, output, *ends) if renoise else x)
    return torch.stack(latents, dim=1)


def last_step(moves: Tensor) -> Tensor:
    """Index of the last True in each row of `moves`, shape (B, K) -> (B,)."""
    positions = torch.arange(moves.shape[1])
    return torch.where(moves, positions, -1).max(dim=1).values


def _mean_of_both_ends(step: Step, second_label: Tensor) -> Tensor:
    first = step.output(step.x, step.first_label())
    return step.along(0.5 * (first + step.output(step.along(first), second_label)))
