"""From the latent cache and the labels to training batches."""

import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from smpo.core.errors import ConfigError, DataError
from smpo.core.randomness import normal_per_seed
from smpo.core.records import TrainingBatch
from smpo.core.signals import left_to_parent
from smpo.data.pair_set import PairSet
from smpo.models.sd import StableDiffusion
from smpo.preparation.cache import LatentCache, prompt_rows
from smpo.preparation.label import LabelTable
from smpo.training.cached import CachedInversions
from smpo.training.options import TrainingOptions
from smpo.training.order import Draws, Example, ExampleOrder, draws_of, example_at, micro_batch_share, sort_by_timestep


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


@dataclass(frozen=True)
class Share:
    """The part of the work that this process does."""

    rank: int
    num_processes: int


class MicroBatches(Dataset):
    """Micro-batch j of this process, for j = 0, 1, 2, ... without end; reading one depends on nothing read before.

    Where `stored` is set, a batch has what is stored of its examples.
    """

    stored: CachedInversions | None = None

    def __init__(
        self, pairs: TrainingPairs, cache: LatentCache, family: StableDiffusion, *, options: TrainingOptions,
        order: ExampleOrder, share: Share,
    ) -> None:
        if options.flips != "none" and not cache.flips:
            raise ConfigError(f"training.flips={options.flips} needs mirrored views, {cache.folder} has none; "
                              "set training.flips=none, or cache.flips=true and run `smpo cache` again")
        self.pairs, self.cache, self.family = pairs, cache, family
        self.options, self.order, self.share = options, order, share
        self._ordered: tuple[int, Tensor] | None = None

    def __getitem__(self, micro_batch: int) -> TrainingBatch:
        options, share, chain_length = self.options, self.share, self.order.chain_length
        step, number = divmod(micro_batch, options.accumulation(share.num_processes))
        places = micro_batch_share(
            self._places(step), number, rank=share.rank, num_processes=share.num_processes,
            micro_batch_size=options.micro_batch_size, chain_length=chain_length,
        )
        return self.at([step * options.batch_size + place for place in places])

    def at(self, positions: Sequence[int]) -> TrainingBatch:
        """The batch of the examples at these positions of the run's order."""
        return self.collate(self._examples(positions))

    def collate(self, examples: list[Example]) -> TrainingBatch:
        """The batch of these examples."""
        pairs, draws = self.pairs, self._draws(examples)
        rows = [example.row for example in examples]
        captions = [0 if draw.drop_caption else pairs.prompt_rows[row] for row, draw in zip(rows, draws, strict=True)]
        shown = [self._shown(draw) for draw in draws]
        sides = [self._side(examples, draws, list(chosen)) for chosen in zip(*shown, strict=True)]
        sizes = torch.cat([size for _, size in sides])
        p_winner = pairs.p_winner[rows]
        prompts, empty = self.cache.prompts(captions), self.cache.prompts([0] * len(captions))
        return TrainingBatch(
            x_0=torch.stack([x_0 for x_0, _ in sides]),
            timesteps=torch.tensor([draw.timestep for draw in draws]),
            p_winner=torch.stack([p if first == 0 else 1 - p for p, (first, *_) in zip(p_winner, shown, strict=True)]),
            conditioning=self.family.condition({n: torch.cat([t] * len(sides)) for n, t in prompts.items()}, sizes),
            null_conditioning=self.family.condition({n: torch.cat([t] * len(sides)) for n, t in empty.items()}, sizes),
            seeds=torch.tensor([example.seed for example in examples]),
            pair_ids=tuple(pairs.pair_ids[row] for row in rows),
            stored=None if self.stored is None else self.stored.noise(examples),
        )

    def _examples(self, positions: Iterable[int]) -> list[Example]:
        return [example_at(position, num_pairs=len(self.pairs), order=self.order) for position in positions]

    def _draws(self, examples: list[Example]) -> list[Draws]:
        options = self.options
        return [
            draws_of(
                example, min_timestep=options.min_timestep, max_timestep=options.max_timestep,
                caption_dropout=options.caption_dropout, chain_length=self.order.chain_length,
            )
            for example in examples
        ]

    def _places(self, step: int) -> Tensor:
        """The order within this optimizer step; kept until another is asked for."""
        if self._ordered is None or self._ordered[0] != step:
            size = self.options.batch_size
            draws = self._draws(self._examples(range(step * size, (step + 1) * size)))
            timesteps = torch.tensor([draw.timestep for draw in draws])
            self._ordered = step, sort_by_timestep(timesteps, chain_length=self.order.chain_length)
        return self._ordered[1]

    def _shown(self, draw: Draws) -> tuple[int, ...]:
        """Which images of its pair an example shows, in the order of the sides: 0 is the winner, 1 the loser."""
        if self.order.winner_share is None:
            return (0, 1)
        return (0,) if draw.shown < self.order.winner_share else (1,)

    def _side(self, examples: list[Example], draws: list[Draws], shown: list[int]) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) and sizes (B, 6) of the image that each example shows on one side."""
        latents, sizes = [], []
        for example, draw, image in zip(examples, draws, shown, strict=True):
            winner = self.pairs.winner[example.row]
            place = (self.pairs.cache_rows[example.row], winner if image == 0 else 1 - winner, self._view(draw, image))
            mean, std = self.cache.moments(*place)
            if self.options.latents == "sample":
                seed = torch.tensor([example.seed])
                mean = mean + std * normal_per_seed(seed, mean.shape, stream=f"posterior-{image}")[0]
            latents.append(mean)
            sizes.append(self.cache.size(*place))
        return torch.stack(latents), torch.stack(sizes)

    def _view(self, draw: Draws, image: int) -> int:
        """Which cached view of an image an example takes."""
        each = 2 if self.cache.flips else 1
        crop = int(draw.crops[image] * (self.cache.num_views // each))
        flip = draw.flips[0 if self.options.flips == "shared" else image] < 0.5 and self.options.flips != "none"
        return crop * each + int(flip)
