"""Labelled pairs as a batch source: from the latent cache and the labels to training batches."""

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smpo.core.errors import ConfigError, DataError
from smpo.core.processes import Process
from smpo.core.randomness import normal_per_seed
from smpo.core.records import TrainingBatch
from smpo.core.signals import left_to_parent
from smpo.data.pair_set import PairSet
from smpo.models.family import Family
from smpo.preparation.cache import LatentCache, prompt_rows
from smpo.preparation.label import LabelTable
from smpo.training.options import TrainingOptions
from smpo.training.sources.cached import CachedInversions
from smpo.training.sources.order import (
    Draws,
    Example,
    ExampleOrder,
    draws_of,
    example_at,
    micro_batch_share,
    sort_by_timestep,
)


class TrainingPairs:
    """The labelled pairs, each with its place in the cache. Row r of this table is what an epoch shuffles."""

    def __init__(self, pairs: PairSet, labels: LabelTable, cache: LatentCache) -> None:
        made_from = {"label": labels.pairs_fingerprint, "cache": cache.manifest["inputs"]["pairs"]}
        foreign = [f"`smpo {stage}`" for stage, fingerprint in made_from.items() if fingerprint != pairs.fingerprint]
        if foreign:
            verbs = " and ".join(foreign)
            raise DataError(f"{verbs} read other pairs than those of {pairs.folder}; run {verbs} again on these")
        place = {pair_id: row for row, pair_id in enumerate(pairs.pair_ids)}
        rows = prompt_rows(pairs.captions)
        self.pair_ids: list[str] = list(labels.pair_ids)
        self.cache_rows: list[int] = [place[pair_id] for pair_id in self.pair_ids]
        self.prompt_rows: list[int] = [rows[row] for row in self.cache_rows]
        self.winner: list[int] = labels.winner.tolist()
        self.p_winner: Tensor = labels.p_winner

    def __len__(self) -> int:
        return len(self.pair_ids)


def ignore_signals_in_worker(worker: int) -> None:
    """Let this loader process survive the signals that a scheduler or a terminal sends to every process of a job.

    The training process decides what to do about them, and needs its batches meanwhile. It ends the loader itself, at
    worst by a second SIGTERM.
    """
    left_to_parent()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, lambda *_: os._exit(0)))


class MicroBatches(Dataset[TrainingBatch]):
    """Micro-batch j of a process, for j = 0, 1, 2, ... without end; reading one depends on nothing read before."""

    def __init__(self, source: "PairSource", process: Process) -> None:
        self.source, self.process = source, process
        self._ordered: tuple[int, Tensor] | None = None

    def __getitem__(self, micro_batch: int) -> TrainingBatch:
        options, process, chain_length = self.source.options, self.process, self.source.order.chain_length
        step, number = divmod(micro_batch, options.accumulation(process.world_size))
        places = micro_batch_share(
            self._places(step), number, rank=process.rank, num_processes=process.world_size,
            micro_batch_size=options.micro_batch_size, chain_length=chain_length,
        )
        return self.at([step * options.batch_size + place for place in places])

    def at(self, positions: Sequence[int]) -> TrainingBatch:
        """The batch of the examples at these positions of the run's order."""
        return self.collate(self._examples(positions))

    def collate(self, examples: list[Example]) -> TrainingBatch:
        """The batch of these examples."""
        pairs, condition, draws = self.source.pairs, self.source.family.condition, self._draws(examples)
        rows = [example.row for example in examples]
        captions = [0 if draw.drop_caption else pairs.prompt_rows[row] for row, draw in zip(rows, draws, strict=True)]
        shown = [self._shown(draw) for draw in draws]
        sides = [self._side(examples, draws, list(chosen)) for chosen in zip(*shown, strict=True)]
        sizes = torch.cat([size for _, size in sides])
        p_winner = pairs.p_winner[rows]
        prompts, empty = self.source.cache.prompts(captions), self.source.cache.prompts([0] * len(captions))
        return TrainingBatch(
            x_0=torch.stack([x_0 for x_0, _ in sides]),
            timesteps=torch.tensor([draw.timestep for draw in draws]),
            p_winner=torch.stack([p if first == 0 else 1 - p for p, (first, *_) in zip(p_winner, shown, strict=True)]),
            conditioning=condition({n: torch.cat([t] * len(sides)) for n, t in prompts.items()}, sizes),
            null_conditioning=condition({n: torch.cat([t] * len(sides)) for n, t in empty.items()}, sizes),
            seeds=torch.tensor([example.seed for example in examples]),
            ids=tuple(pairs.pair_ids[row] for row in rows),
            cached=None if self.source.cached is None else self.source.cached.read(examples),
        )

    def _examples(self, positions: Iterable[int]) -> list[Example]:
        num_pairs, order = len(self.source.pairs), self.source.order
        return [example_at(position, num_pairs=num_pairs, order=order) for position in positions]

    def _draws(self, examples: list[Example]) -> list[Draws]:
        options = self.source.options
        return [
            draws_of(
                example, min_timestep=options.min_timestep, max_timestep=options.max_timestep,
                caption_dropout=options.caption_dropout, chain_length=self.source.order.chain_length,
            )
            for example in examples
        ]

    def _places(self, step: int) -> Tensor:
        """The order within this optimizer step; kept until another is asked for."""
        if self._ordered is None or self._ordered[0] != step:
            size = self.source.options.batch_size
            draws = self._draws(self._examples(range(step * size, (step + 1) * size)))
            timesteps = torch.tensor([draw.timestep for draw in draws])
            self._ordered = step, sort_by_timestep(timesteps, chain_length=self.source.order.chain_length)
        return self._ordered[1]

    def _shown(self, draw: Draws) -> tuple[int, ...]:
        """Which images of its pair an example shows, in the order of the sides: 0 is the winner, 1 the loser."""
        if self.source.order.winner_share is None:
            return (0, 1)
        return (0,) if draw.shown < self.source.order.winner_share else (1,)

    def _side(self, examples: list[Example], draws: list[Draws], shown: list[int]) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) and sizes (B, 6) of the image that each example shows on one side."""
        latents, sizes = [], []
        for example, draw, image in zip(examples, draws, shown, strict=True):
            pairs = self.source.pairs
            index = pairs.winner[example.row] if image == 0 else 1 - pairs.winner[example.row]
            place = pairs.cache_rows[example.row], index, self._view(draw, image)
            mean, std = self.source.cache.moments(*place)
            if self.source.options.latents == "sample":
                seed = torch.tensor([example.seed])
                mean = mean + std * normal_per_seed(seed, mean.shape, stream=f"posterior-{image}")[0]
            latents.append(mean)
            sizes.append(self.source.cache.size(*place))
        return torch.stack(latents), torch.stack(sizes)

    def _view(self, draw: Draws, image: int) -> int:
        """Which cached view of an image an example takes."""
        each = 2 if self.source.cache.flips else 1
        crop = int(draw.crops[image] * (self.source.cache.num_views // each))
        flips = self.source.options.flips
        flip = draw.flips[0 if flips == "shared" else image] < 0.5 and flips != "none"
        return crop * each + int(flip)


@dataclass(frozen=True)
class PairSource:
    """See `BatchSource`.

    Raises:
        ConfigError: the options ask for mirrored images, and the cache has none.

    Attributes:
        pairs: labelled pairs.
        cache: their latents and prompts.
        family: makes the conditioning.
        options: the training section.
        order: which pair comes when.
        cached: the inversions of the examples, where these were made before training.
    """

    pairs: TrainingPairs
    cache: LatentCache
    family: Family
    options: TrainingOptions
    order: ExampleOrder
    cached: CachedInversions | None = None

    @property
    def examples_per_epoch(self) -> int:
        """One of each pair."""
        return len(self.pairs)

    def __post_init__(self) -> None:
        if self.options.flips != "none" and not self.cache.flips:
            raise ConfigError(f"training.flips={self.options.flips} needs mirrored views, {self.cache.folder} has "
                              "none; set training.flips=none, or cache.flips=true and run `smpo cache` again")

    def micro_batches(
        self, first: int, stop: int, *, process: Process, pin_memory: bool
    ) -> Iterator[TrainingBatch]:
        """The micro-batches `first` to `stop` - 1 of a process."""
        return iter(DataLoader(
            MicroBatches(self, process), batch_size=None, sampler=range(first, stop), num_workers=self.options.workers,
            worker_init_fn=ignore_signals_in_worker, pin_memory=pin_memory,
        ))
