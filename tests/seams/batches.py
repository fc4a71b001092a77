"""A small training batch and a model that records what it is asked."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from smpo.core.records import Conditioning, TrainingBatch
from tests.maths.references import draw

SHAPE = (4, 2, 2)
TIMESTEPS = (5, 101, 640, 999)


def conditioning(values: Tensor) -> Conditioning:
    return Conditioning({"hidden": values})


def batch_of(
    timesteps: Sequence[int] = TIMESTEPS, *, seeds: Sequence[int] | None = None, first: int = 0
) -> TrainingBatch:
    """float32 pairs whose latents and conditioning depend on the pair's number only (`first`, `first` + 1, ...).

    Conditioning is one number a row: 0.1 (pair + 1) for its prompt, -0.5 for the empty prompt.
    """
    numbers = range(first, first + len(timesteps))
    x_0 = torch.stack([draw(2, *SHAPE, seed=100 + number) for number in numbers], dim=1).float()
    prompt = torch.tensor([0.1 * (number + 1) for number in numbers]).repeat(2)
    return TrainingBatch(
        x_0=x_0, timesteps=torch.tensor(timesteps), p_winner=torch.full((len(timesteps),), 0.6),
        conditioning=conditioning(prompt), null_conditioning=conditioning(torch.full_like(prompt, -0.5)),
        seeds=torch.tensor(seeds if seeds is not None else list(numbers)),
        ids=tuple(f"p{number}" for number in numbers),
    )


def winners(batch: TrainingBatch) -> TrainingBatch:
    """The same examples, showing their winners alone."""
    first = torch.arange(len(batch.ids))
    return replace(
        batch, x_0=batch.x_0[:1], conditioning=batch.conditioning.rows(first),
        null_conditioning=batch.null_conditioning.rows(first),
    )


class Model:
    """eps = sin(x + c) weight, a differentiable stand-in for a UNet under a `Predict` signature."""

    def __init__(self) -> None:
        self.weight = torch.ones((), requires_grad=True)
        self.calls: list[tuple[Tensor, Tensor]] = []  # (labels, conditioning of the rows)

    def __call__(self, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        c = given.tensors["hidden"]
        self.calls.append((timesteps, c))
        return torch.sin(x_t + c.view(-1, 1, 1, 1)) * self.weight
