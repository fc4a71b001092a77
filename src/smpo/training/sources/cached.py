"""The files of the examples that `smpo invert` has noised ahead of training."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smpo.core.artefacts import Artefact
from smpo.core.parts import Parts, SealedBlocks
from smpo.core.records import CachedInversion
from smpo.preparation.cache import save_block
from smpo.training.sources.order import Example, ExampleOrder, first_position

STAGE = "invert"
BLOCK_CHAINS = 128  # a block holds so many examples, of a chained noising so many chains
ARRAYS = ("x_t", "timesteps", "reference")  # of a block


class CachedInversions:
    """A finished store, memory-mapped; each block is compared with its seal when it is first used.

    The example first made at position p of the run's order is row p.
    So the first pass reads it from front to back, and it holds no example that training does not come to.
    """

    def __init__(self, folder: Path, order: ExampleOrder, num_pairs: int) -> None:
        self.folder, self.order, self.num_pairs = folder, order, num_pairs
        self.artefact = Artefact.open(folder, stage=STAGE)
        self.manifest = self.artefact.manifest

    def __len__(self) -> int:
        return self.manifest["results"]["examples"]

    def read(self, examples: Sequence[Example]) -> CachedInversion:
        """What is stored of these examples."""
        rows = [first_position(example, num_pairs=self.num_pairs, order=self.order) for example in examples]
        x_t, timesteps, reference = (self._read(name, rows) for name in ARRAYS)
        return CachedInversion(x_t.float().transpose(0, 1).contiguous(), timesteps, reference.T.contiguous())

    def _read(self, name: str, rows: Sequence[int]) -> Tensor:
        places = [divmod(row, block_size(self.order)) for row in rows]
        return torch.stack([torch.from_numpy(np.array(self._blocks[name][block][row])) for block, row in places])

    @cached_property
    def _blocks(self) -> dict[str, SealedBlocks]:
        return {name: SealedBlocks(self.artefact, name) for name in ARRAYS}


def block_size(order: ExampleOrder) -> int:
    """Examples in a block."""
    return BLOCK_CHAINS * order.chain_length


def write_block(parts: Parts, number: int, noise: CachedInversion, *, dtype: str) -> None:
    """Write the examples of a block, example by example in every array, the latents as `dtype`.

    Raises:
        DataError: a latent does not fit into `dtype`.
    """
    save_block(parts, _file("x_t", number), noise.x_t.transpose(0, 1).contiguous(), dtype=dtype)
    save_block(parts, _file("timesteps", number), noise.timesteps, dtype="int64")
    save_block(parts, _file("reference", number), noise.reference.T.contiguous(), dtype="float32")


def holds_block(parts: Parts, number: int, examples: int) -> bool:
    """Whether a block is there, and has `examples`: a store that is to grow has a short one at its end."""
    files = [_file(name, number) for name in ARRAYS]
    return all(file in parts for file in files) and all(
        len(np.load(parts.folder / file, mmap_mode="r")) >= examples for file in files
    )


def _file(name: str, number: int) -> str:
    return f"{name}-{number:05d}.npy"
