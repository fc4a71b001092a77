"""Random draws as functions of given numbers alone, without global state.

So a resumed run, and one on another number of processes, gets the same draws.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63), the hash of `parts` joined by "/"; torch's CPU generator uses its low 32 bits."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator seeded with `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def normal_per_seed(seeds: Tensor, shape: Sequence[int], *, stream: str) -> Tensor:
    """Standard normal draws, shape (B, *shape), float32; row i depends on seeds[i] and `stream` alone.

    They are made on the CPU, so that they do not depend on the device.
    """
    return torch.stack([torch.randn(*shape, generator=generator(seed, stream)) for seed in seeds.tolist()])


def normal_per_stream(seeds: Tensor, shape: Sequence[int], *, streams: Sequence[str]) -> Tensor:
    """`normal_per_seed` of each stream, one after the other, shape (len(streams) * B, *shape)."""
    return torch.cat([normal_per_seed(seeds, shape, stream=stream) for stream in streams])
