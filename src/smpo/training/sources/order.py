"""Which pair is seen when, and with which random draws: pure functions of the seed, for any number of processes."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from smpo.core.randomness import derive_seed, generator


@dataclass(frozen=True)
class ExampleOrder:
    """How the pairs are visited.

    Attributes:
        seed: of the order and of every draw.
        winner_share: None = an example shows both images of its pair; else one, the winner with this probability.
        chain_length: so many examples in a row see one pair with the same draws, at as many timesteps (see `draws_of`).
        reuse_epochs: after so many epochs the draws of a pair come again; None = they never do.
    """

    seed: int
    winner_share: float | None = None
    chain_length: int = 1
    reuse_epochs: int | None = None


@dataclass(frozen=True)
class Example:
    """One example of a pair.

    Attributes:
        row: of the pair in the training set.
        seed: from which all random draws of this example derive.
        chain_index: which of the examples that share these draws, in [0, chain_length).
        draw_epoch: which of the pair's draws these are, in [0, reuse_epochs).
    """

    row: int
    seed: int
    chain_index: int = 0
    draw_epoch: int = 0


@dataclass(frozen=True)
class Draws:
    """The small random draws of an example. Uniform numbers lie in [0, 1)."""

    timestep: int
    drop_caption: bool
    flips: tuple[float, float]
    crops: tuple[float, float]
    shown: float


def example_at(position: int, *, num_pairs: int, order: ExampleOrder) -> Example:
    """The example at `position` of the endless sequence of shuffled epochs, each of every pair `chain_length` times."""
    place, chain_index = divmod(position, order.chain_length)
    epoch, place = divmod(place, num_pairs)
    row = int(_permutation(num_pairs, order.seed, epoch)[place])
    turn = epoch if order.reuse_epochs is None else epoch % order.reuse_epochs
    return Example(row, derive_seed(order.seed, "visit", turn, row), chain_index, turn)


def first_position(example: Example, *, num_pairs: int, order: ExampleOrder) -> int:
    """The first position at which this example is made; `example_at` gives it back."""
    place = int(_places(num_pairs, order.seed, example.draw_epoch)[example.row])
    return (example.draw_epoch * num_pairs + place) * order.chain_length + example.chain_index


def distinct_examples(examples: int, *, num_pairs: int, order: ExampleOrder) -> int:
    """How many of the first `examples` examples differ; they come before all that are made again."""
    if order.reuse_epochs is None:
        return examples
    return min(examples, order.reuse_epochs * num_pairs * order.chain_length)


def draws_of(
    example: Example, *, min_timestep: int, max_timestep: int, caption_dropout: float, chain_length: int = 1
) -> Draws:
    """The draws of an example: uniform timestep in [min, max], one dropout decision, flips, crops, the image to show.

    Of examples that are linked each has the timestep in another of `chain_length` equal parts of [min, max], rising and
    equally far apart: systematic sampling, uniform over all of them.
    """
    numbers = torch.rand(7, generator=generator(example.seed, "draws"), dtype=torch.float64).tolist()
    place = (example.chain_index + numbers[0]) / chain_length * (max_timestep - min_timestep + 1)
    timestep = min(min_timestep + int(place), max_timestep)  # 3 + 0.99... may round to 4
    flips, crops = (numbers[2], numbers[3]), (numbers[4], numbers[5])
    return Draws(timestep, numbers[1] < caption_dropout, flips, crops, numbers[6])


def sort_by_timestep(timesteps: Tensor, *, chain_length: int = 1) -> Tensor:
    """The places of an optimizer step's examples in the order in which micro-batches take them, shape (V,).

    Examples of like timesteps come together: inversions of a micro-batch are then equally long, and its passes full to
    the last. An optimizer step's sums do not depend on the order.

    Args:
        timesteps: of the examples, shape (V,).
        chain_length: so many examples in a row stay together.
    """
    ends = timesteps.view(-1, chain_length)[:, -1]
    return (ends.argsort(stable=True)[:, None] * chain_length + torch.arange(chain_length)).flatten()


def micro_batch_share(
    places: Tensor, number: int, *, rank: int, num_processes: int, micro_batch_size: int, chain_length: int = 1
) -> list[int]:
    """Of all `places` of an optimizer step those in a process's micro-batch `number`.

    The processes deal out what all of them do at the same time, so that none waits for another's longer inversions.
    """
    together = micro_batch_size * num_processes
    chains = places[number * together : (number + 1) * together].view(-1, chain_length)
    return chains[rank::num_processes].flatten().tolist()


@lru_cache(maxsize=2)
def _permutation(num_pairs: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(num_pairs, generator=generator(seed, "order", epoch))


@lru_cache(maxsize=2)
def _places(num_pairs: int, seed: int, epoch: int) -> Tensor:
    return _permutation(num_pairs, seed, epoch).argsort()
