"""The files of the visits that `smpo invert` has noised ahead of training."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smpo.core.artefacts import Artefact
from smpo.core.errors import ConfigError
from smpo.core.parts import Parts, SealedBlocks
from smpo.core.records import StoredNoise
from smpo.preparation.cache import save_block
from smpo.training.options import TrainingOptions
from smpo.training.order import Visit, Visiting, first_position

STAGE = "invert"
BLOCK_CHAINS = 128  # a block holds so many visits, of a chained noising so many chains
ARRAYS = ("x_t", "timesteps", "reference")  # of a block


def check_storable(options: TrainingOptions, objective: Any, noising: Any) -> None:
    """ConfigError unless what `training.stored_visits` stores is needed, and stays true while the policy is trained."""
    if not objective.needs_reference:
        raise ConfigError(
            f"training.stored_visits={options.stored_visits} stores a reference's errors, and objective "
            f"{type(objective).__name__} needs none; set it to null"
        )
    if noising.network == "policy":
        raise ConfigError(
            f"training.stored_visits={options.stored_visits} needs latents that the reference makes, got "
            "noising.network=policy; set noising.network=reference, or stored_visits to null"
        )
    if options.reference_ema_decay is not None:
        raise ConfigError(
            f"training.stored_visits={options.stored_visits} needs a reference that stands still, got "
            f"reference_ema_decay={options.reference_ema_decay}; set one of them to null"
        )


class StoredVisits:
    """A finished store, memory-mapped; each block is compared with its seal when it is first used.

    The visit first made at position p of the run's order is row p.
    So the first pass reads it from front to back, and it holds no visit that training does not come to.
    """

    def __init__(self, folder: Path, visiting: Visiting, num_pairs: int) -> None:
        self.folder, self.visiting, self.num_pairs = folder, visiting, num_pairs
        self.artefact = Artefact.open(folder, stage=STAGE)
        self.manifest = self.artefact.manifest

    def __len__(self) -> int:
        return self.manifest["results"]["visits"]

    def noise(self, visits: Sequence[Visit]) -> StoredNoise:
        """What is stored of these visits."""
        rows = [first_position(visit, num_pairs=self.num_pairs, visiting=self.visiting) for visit in visits]
        x_t, timesteps, reference = (self._read(name, rows) for name in ARRAYS)
        return StoredNoise(x_t.float().transpose(0, 1).contiguous(), timesteps, reference.T.contiguous())

    def _read(self, name: str, rows: Sequence[int]) -> Tensor:
        places = [divmod(row, block_size(self.visiting)) for row in rows]
        return torch.stack([torch.from_numpy(np.array(self._blocks[name][block][row])) for block, row in places])

    @cached_property
    def _blocks(self) -> dict[str, SealedBlocks]:
        return {name: SealedBlocks(self.artefact, name) for name in ARRAYS}


def block_size(visiting: Visiting) -> int:
    """Visits in a block."""
    return BLOCK_CHAINS * visiting.links


def write_block(parts: Parts, number: int, noise: StoredNoise, *, dtype: str) -> None:
    """Write the visits of a block, visit by visit in every array, the latents as `dtype`.

    Raises:
        DataError: a latent does not fit into `dtype`.
    """
    save_block(parts, _file("x_t", number), noise.x_t.transpose(0, 1).contiguous(), dtype=dtype)
    save_block(parts, _file("timesteps", number), noise.timesteps, dtype="int64")
    save_block(parts, _file("reference", number), noise.reference.T.contiguous(), dtype="float32")


def holds_block(parts: Parts, number: int, visits: int) -> bool:
    """Whether a block is there, and has `visits`: a store that is to grow has a short one at its end."""
    files = [_file(name, number) for name in ARRAYS]
    return all(file in parts for file in files) and all(
        len(np.load(parts.folder / file, mmap_mode="r")) >= visits for file in files
    )


def _file(name: str, number: int) -> str:
    return f"{name}-{number:05d}.npy"
