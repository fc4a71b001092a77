"""Which pair is seen when, and with which random draws: pure functions of the seed, for any number of processes."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from smpo.core.randomness import derive_seed, generator


@dataclass(frozen=True)
class Visiting:
    """How the pairs are visited.

    Attributes:
        seed: of the order and of every draw.
        winner_share: None = a visit shows both images of its pair; else one, the winner with this probability.
        links: so many visits in a row see one pair with the same draws, at as many timesteps (see `draws_of`).
        rounds: after so many epochs the draws of a pair come again; None = they never do.
    """

    seed: int
    winner_share: float | None = None
    links: int = 1
    rounds: int | None = None


@dataclass(frozen=True)
class Visit:
    """One visit of a pair.

    Attributes:
        row: of the pair in the training set.
        seed: from which all random draws of this visit derive.
        link: which of the visits that share these draws, in [0, links).
        round: which of the pair's draws these are, in [0, rounds).
    """

    row: int
    seed: int
    link: int = 0
    round: int = 0


@dataclass(frozen=True)
class Draws:
    """The small random draws of a visit. Uniform numbers lie in [0, 1)."""

    timestep: int
    drop_caption: bool
    flips: tuple[float, float]
    crops: tuple[float, float]
    shown: float


def visit_at(position: int, *, num_pairs: int, visiting: Visiting) -> Visit:
    """The visit at `position` of the endless sequence of shuffled epochs; every epoch sees every pair `links` times."""
    place, link = divmod(position, visiting.links)
    epoch, place = divmod(place, num_pairs)
    row = int(_permutation(num_pairs, visiting.seed, epoch)[place])
    turn = epoch if visiting.rounds is None else epoch % visiting.rounds
    return Visit(row, derive_seed(visiting.seed, "visit", turn, row), link, turn)


def first_position(visit: Visit, *, num_pairs: int, visiting: Visiting) -> int:
    """The first position at which this visit is made; `visit_at` gives it back."""
    place = int(_places(num_pairs, visiting.seed, visit.round)[visit.row])
    return (visit.round * num_pairs + place) * visiting.links + visit.link


def distinct_visits(visits: int, *, num_pairs: int, visiting: Visiting) -> int:
    """How many of the first `visits` visits differ; they come before all that are made again."""
    return visits if visiting.rounds is None else min(visits, visiting.rounds * num_pairs * visiting.links)


def draws_of(
    visit: Visit, *, min_timestep: int, max_timestep: int, caption_dropout: float, links: int = 1
) -> Draws:
    """The draws of a visit: uniform timestep in [min, max], one dropout decision, flips, crops, the image to show.

    Of visits that are linked each has the timestep in another of `links` equal parts of [min, max], rising and equally
    far apart: systematic sampling, uniform over all of them.
    """
    numbers = torch.rand(7, generator=generator(visit.seed, "draws"), dtype=torch.float64).tolist()
    place = (visit.link + numbers[0]) / links * (max_timestep - min_timestep + 1)
    timestep = min(min_timestep + int(place), max_timestep)  # 3 + 0.99... may round to 4
    flips, crops = (numbers[2], numbers[3]), (numbers[4], numbers[5])
    return Draws(timestep, numbers[1] < caption_dropout, flips, crops, numbers[6])


def places_alike(timesteps: Tensor, *, links: int = 1) -> Tensor:
    """The places of an optimizer step's visits in the order in which micro-batches take them, shape (V,).

    Visits of like timesteps come together: inversions of a micro-batch are then equally long, and its passes full to
    the last. An optimizer step's sums do not depend on the order.

    Args:
        timesteps: of the visits, shape (V,).
        links: so many visits in a row stay together.
    """
    ends = timesteps.view(-1, links)[:, -1]
    return (ends.argsort(stable=True)[:, None] * links + torch.arange(links)).flatten()


def micro_batch_share(
    places: Tensor, number: int, *, rank: int, num_processes: int, micro_batch_size: int, links: int = 1
) -> list[int]:
    """Of all `places` of an optimizer step those in a process's micro-batch `number`.

    The processes deal out what all of them do at the same time, so that none waits for another's longer inversions.
    """
    together = micro_batch_size * num_processes
    chains = places[number * together : (number + 1) * together].view(-1, links)
    return chains[rank::num_processes].flatten().tolist()


@lru_cache(maxsize=2)
def _permutation(num_pairs: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(num_pairs, generator=generator(seed, "order", epoch))


@lru_cache(maxsize=2)
def _places(num_pairs: int, seed: int, epoch: int) -> Tensor:
    return _permutation(num_pairs, seed, epoch).argsort()
