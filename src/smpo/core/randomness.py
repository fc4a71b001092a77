"""Random draws as pure functions of numbers, never of global state: what makes a run resumable and divisible."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) of the parts in their order, as joined by "/"; torch's CPU generator uses its low 32 bits."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator seeded with `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def normal_per_seed(seeds: Tensor, shape: Sequence[int], *, stream: str) -> Tensor:
    """Standard normal draws, row i a function of (seeds[i], stream) alone, shape (B, *shape), float32, on the CPU.

    On the CPU whatever the device, so that results do not depend on it.
    """
    return torch.stack([torch.randn(*shape, generator=generator(seed, stream)) for seed in seeds.tolist()])


def normal_per_stream(seeds: Tensor, shape: Sequence[int], *, streams: Sequence[str]) -> Tensor:
    """`normal_per_seed` of each stream, one after the other, shape (len(streams) * B, *shape)."""
    return torch.cat([normal_per_seed(seeds, shape, stream=stream) for stream in streams])
