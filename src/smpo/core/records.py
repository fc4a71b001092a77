"""The frozen records that flow between the layers. A value that belongs to a sample travels in the sample's record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from smpo.core.transfer import send

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """What a model family's denoiser is conditioned on; opaque to everything but the family.

    Attributes:
        tensors: name -> tensor whose first axis is the batch, all of one length.
    """

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return next(iter(self.tensors.values())).shape[0]

    def rows(self, index: Tensor) -> Conditioning:
        """The conditioning of the rows `index`, shape (n,) integer or (B,) boolean."""
        return Conditioning({name: tensor[index] for name, tensor in self.tensors.items()})

    def moved(self, move: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same, each tensor as `move` gives it back."""
        return Conditioning({name: move(tensor) for name, tensor in self.tensors.items()})


Predict: TypeAlias = "Callable[[Tensor, Tensor, Conditioning], Tensor]"
"""(x_t (n, C, H, W), timesteps (n,) on the CPU, conditioning of n) -> the model's output (n, C, H, W), float32."""


@dataclass(frozen=True)
class CachedInversion:
    """What `smpo invert` has stored of B examples, in place of their noising and of the reference.

    Attributes:
        x_t: noised latents as they were rounded, shape (S, B, C, H, W), float32.
        timesteps: their labels for the UNet, which may differ from those drawn, shape (B,), int64; always on the CPU.
        reference: the reference's error of each image at these latents, shape (S, B), float32.
    """

    x_t: Tensor
    timesteps: Tensor
    reference: Tensor

    def moved(self, move: Callable[[Tensor], Tensor]) -> CachedInversion:
        """The same, each tensor but the timesteps as `move` gives it back."""
        return replace(self, x_t=move(self.x_t), reference=move(self.reference))


@dataclass(frozen=True)
class TrainingBatch:
    """B examples, ready to be noised. S = 2 sides, winner first; S = 1 where an example shows one image of its pair.

    Attributes:
        x_0: clean latents, scaled, shape (S, B, C, H, W), float32.
        timesteps: in [1, 999], shape (B,), int64; shared by both sides of a pair; always on the CPU, like the seeds.
        p_winner: smoothed probability of the first side's image being the better of its pair, alpha / gamma, in [0, 1],
            shape (B,). Of a pair and of a winner shown alone this is the label's; of a loser shown alone one minus it,
            so that hard labels make 1 a desirable image and 0 an undesirable one.
        conditioning: S * B rows in the order of `flatten_sides`, after caption dropout; both sides have one prompt, and
            inversion, policy and reference share it.
        null_conditioning: of the empty prompt, S * B rows.
        seeds: one number per pair and example, shape (B,), int64; all of the pair's random draws derive from it.
        ids: names of the examples' pairs, for error messages.
        cached: their noised latents, where these were made before training.
    """

    x_0: Tensor
    timesteps: Tensor
    p_winner: Tensor
    conditioning: Conditioning
    null_conditioning: Conditioning
    seeds: Tensor
    ids: tuple[str, ...]
    cached: CachedInversion | None = None

    def to(self, device: torch.device) -> TrainingBatch:
        """The same on `device`; seeds and timesteps stay on the CPU, where draws and inversions' plans are made."""
        return self._moved(lambda tensor: send(tensor, device))

    def pin_memory(self) -> TrainingBatch:
        """The same, what `to` sends in pinned memory; the data loader calls this where the device is a GPU."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> TrainingBatch:
        return replace(
            self, x_0=move(self.x_0), p_winner=move(self.p_winner), conditioning=self.conditioning.moved(move),
            null_conditioning=self.null_conditioning.moved(move),
            cached=None if self.cached is None else self.cached.moved(move),
        )


@dataclass(frozen=True)
class NoisyPair:
    """Noised latents with *their own* timesteps and regression target.

    Attributes:
        x_t: noised latents, shape (S, B, C, H, W), float32, without gradient.
        target: what the denoiser is to predict at (x_t, timesteps), as its path has it, shape (S, B, C, H, W), float32.
        timesteps: labels for the denoiser, shape (B,), int64, on the CPU.
    """

    x_t: Tensor
    target: Tensor
    timesteps: Tensor


@dataclass(frozen=True)
class PairErrors:
    """Mean squared error of the prediction of each image, shape (B,), float32.

    `pool` holds what an objective pools over the optimizer step, of all its examples on all processes, shape (n,).
    Where an example shows one image of its pair, `_w` holds that image, winner or not, and `_l` is None; the reference
    is None where an objective needs none.
    """

    policy_w: Tensor
    policy_l: Tensor | None = None
    reference_w: Tensor | None = None
    reference_l: Tensor | None = None
    pool: Tensor | None = None


def flatten_sides(x: Tensor) -> Tensor:
    """(S, B, ...) -> (S * B, ...): all winners, then all losers."""
    return x.flatten(0, 1)


def unflatten_sides(x: Tensor, sides: int) -> Tensor:
    """(S * B, ...) -> (S, B, ...), the inverse of `flatten_sides`."""
    return x.unflatten(0, (sides, -1))
