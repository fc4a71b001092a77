"""The files of the visits that `smpo invert` has noised ahead of training."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smpo.artefacts import read_manifest
from smpo.errors import ConfigError
from smpo.preparation.cache import map_blocks, save_block
from smpo.records import StoredNoise
from smpo.training.options import TrainingOptions
from smpo.training.order import Visit, Visiting, first_position

STAGE = "invert"
BLOCK_CHAINS = 128  # a block holds so many visits, of a chained noising so many chains
LAST = "reference"  # of the arrays of a block, written when the others are there


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
    """A finished store, memory-mapped. The visit first made at position p of the run's order is row p.

    So the first pass reads it from front to back, and it holds no visit that training does not come to.
    """

    def __init__(self, folder: Path, visiting: Visiting, num_pairs: int) -> None:
        self.folder, self.visiting, self.num_pairs = folder, visiting, num_pairs
        self.manifest = read_manifest(folder, stage=STAGE)

    def __len__(self) -> int:
        return self.manifest["results"]["visits"]

    def noise(self, visits: Sequence[Visit]) -> StoredNoise:
        """What is stored of these visits."""
        rows = [first_position(visit, num_pairs=self.num_pairs, visiting=self.visiting) for visit in visits]
        x_t, timesteps, reference = (self._read(name, rows) for name in ("x_t", "timesteps", LAST))
        return StoredNoise(x_t.float().transpose(0, 1).contiguous(), timesteps, reference.T.contiguous())

    def _read(self, name: str, rows: Sequence[int]) -> Tensor:
        places = [divmod(row, block_size(self.visiting)) for row in rows]
        return torch.stack([torch.from_numpy(np.array(self._blocks[name][block][row])) for block, row in places])

    @cached_property
    def _blocks(self) -> dict[str, list[np.ndarray]]:
        return {name: map_blocks(self.folder, name) for name in ("x_t", "timesteps", LAST)}


def block_size(visiting: Visiting) -> int:
    """Visits in a block."""
    return BLOCK_CHAINS * visiting.links


def write_block(folder: Path, number: int, noise: StoredNoise, *, dtype: str) -> None:
    """Write the visits of a block, visit by visit in every array, the latents as `dtype`.

    Raises:
        DataError: a latent does not fit into `dtype`.
    """
    save_block(folder / f"x_t-{number:05d}.npy", noise.x_t.transpose(0, 1).contiguous(), dtype=dtype)
    save_block(folder / f"timesteps-{number:05d}.npy", noise.timesteps, dtype="int64")
    save_block(folder / f"{LAST}-{number:05d}.npy", noise.reference.T.contiguous(), dtype="float32")


def holds_block(folder: Path, number: int, visits: int) -> bool:
    """Whether a block is there, and has `visits`: a store that is to grow has a short one at its end."""
    path = folder / f"{LAST}-{number:05d}.npy"
    return path.exists() and len(np.load(path, mmap_mode="r")) >= visits
