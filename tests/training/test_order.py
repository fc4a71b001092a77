"""Which pair is visited when: a pure function of (seed, epoch, index)."""

from collections import Counter
from functools import partial

import pytest
import torch

from smpo.core.randomness import derive_seed, generator, normal_per_seed
from smpo.training.sources.order import (
    ExampleOrder,
    distinct_examples,
    draws_of,
    example_at,
    first_position,
    micro_batch_share,
    sort_by_timestep,
)


def epoch_rows(epoch: int, *, num_pairs: int = 10, seed: int = 0) -> list[int]:
    start = epoch * num_pairs
    positions = range(start, start + num_pairs)
    return [example_at(position, num_pairs=num_pairs, order=ExampleOrder(seed)).row for position in positions]


@pytest.mark.parametrize("num_pairs", [1, 2, 7, 10, 101])
def test_every_epoch_sees_every_pair_once(num_pairs: int) -> None:
    for epoch in (0, 1, 5):
        assert sorted(epoch_rows(epoch, num_pairs=num_pairs)) == list(range(num_pairs))


def test_epochs_and_seeds_have_different_orders() -> None:
    orders = [tuple(epoch_rows(epoch, num_pairs=50, seed=seed)) for epoch in range(4) for seed in range(3)]
    assert len(set(orders)) == 12


def test_a_visit_does_not_depend_on_the_visits_before_it() -> None:
    forward = [example_at(position, num_pairs=10, order=ExampleOrder(3)) for position in range(60)]
    backward = [example_at(position, num_pairs=10, order=ExampleOrder(3)) for position in reversed(range(60))]
    torch.manual_seed(123)
    assert backward[::-1] == forward


def test_every_visit_has_its_own_seed() -> None:
    assert len({example_at(position, num_pairs=10, order=ExampleOrder(0)).seed for position in range(1000)}) == 1000


@pytest.mark.parametrize("chain_length", [1, 2])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("micro_batch_size", [2, 4])
def test_processes_partition_every_step(num_processes: int, micro_batch_size: int, chain_length: int) -> None:
    """Every place once; whole chains in their order; and in a micro-batch all have like timesteps."""
    timesteps = torch.randint(1, 1000, (24,), generator=generator(0, "test"))
    places = sort_by_timestep(timesteps, chain_length=chain_length)
    accumulation = 24 // (num_processes * micro_batch_size)
    shares = [
        [micro_batch_share(places, number, rank=rank, num_processes=num_processes, micro_batch_size=micro_batch_size,
                           chain_length=chain_length) for rank in range(num_processes)]
        for number in range(accumulation)
    ]
    assert sorted(place for number in shares for share in number for place in share) == list(range(24))
    for share in (share for number in shares for share in number):
        assert len(share) == micro_batch_size
        place = [i % chain_length for i in range(len(share))]
        assert all(share[i] % chain_length == place[i] and share[i] - share[i - place[i]] == place[i]
                   for i in range(micro_batch_size))
    last = slice(chain_length - 1, None, chain_length)
    ends = [[int(timesteps[place]) for share in number for place in share[last]] for number in shares]
    assert all(max(before) <= min(after) for before, after in zip(ends, ends[1:], strict=False))


def test_processes_share_out_the_long_and_the_short_by_hand() -> None:
    """Timesteps 50, 10, 40, 20, 60, 30 by two processes in micro-batches of one: 10 and 20, 30 and 40, 50 and 60."""
    places = sort_by_timestep(torch.tensor([50, 10, 40, 20, 60, 30]))
    assert places.tolist() == [1, 3, 5, 2, 0, 4]
    share = partial(micro_batch_share, places, num_processes=2)
    assert [share(number, rank=0, micro_batch_size=1) for number in range(3)] == [[1], [5], [0]]
    assert [share(0, rank=rank, micro_batch_size=3) for rank in (0, 1)] == [[1, 5, 0], [3, 2, 4]]
    chained = sort_by_timestep(torch.tensor([7, 90, 30, 50, 1, 60]), chain_length=2)
    assert chained.tolist() == [2, 3, 4, 5, 0, 1]  # by the ends 50, 60, 90


def test_no_pair_is_lost_where_the_batch_size_does_not_divide_the_number_of_pairs() -> None:
    """Ten pairs in steps of four: after five steps every pair was seen twice, none thrown away at an epoch's end."""
    positions = [p for step in range(5) for p in range(4 * step, 4 * step + 4)]
    rows = [example_at(position, num_pairs=10, order=ExampleOrder(0)).row for position in positions]
    assert set(Counter(rows).values()) == {2}


def draws(count: int, **options: float) -> list:
    settings = {"min_timestep": 1, "max_timestep": 999, "caption_dropout": 0.2, **options}
    return [draws_of(example_at(position, num_pairs=7, order=ExampleOrder(0)), **settings) for position in range(count)]


def test_timesteps_are_uniform_and_include_both_ends() -> None:
    counts = Counter(draw.timestep for draw in draws(4000, min_timestep=5, max_timestep=8))
    assert sorted(counts) == [5, 6, 7, 8]
    assert all(abs(count - 1000) < 5 * 28 for count in counts.values())  # binomial deviation sqrt(4000 * 3/16) = 27.4


@pytest.mark.parametrize(("rate", "deviation"), [(0.0, 0.0), (0.2, 0.0063), (1.0, 0.0)])
def test_captions_are_dropped_at_the_given_rate(rate: float, deviation: float) -> None:
    """Deviation of a binomial rate: sqrt(0.2 * 0.8 / 4000) = 0.0063."""
    found = sum(draw.drop_caption for draw in draws(4000, caption_dropout=rate)) / 4000
    assert abs(found - rate) <= 4 * deviation


def test_the_draws_of_a_visit_are_independent_of_each_other() -> None:
    numbers = torch.tensor([[d.timestep / 999, d.drop_caption, *d.flips, *d.crops, d.shown] for d in draws(4000)]).T
    correlation = torch.corrcoef(numbers.double()) - torch.eye(7)
    assert correlation.abs().max() < 5 / 4000**0.5


def test_the_draws_of_a_visit_are_what_they_always_were() -> None:
    """Changing these changes every run; they were six once, and the seventh moved none of them."""
    example = example_at(0, num_pairs=7, order=ExampleOrder(0))
    draw = draws_of(example, min_timestep=1, max_timestep=999, caption_dropout=0.2)
    six = torch.rand(6, generator=generator(example.seed, "draws"), dtype=torch.float64)
    assert [*draw.flips, *draw.crops] == six[2:].tolist() and draw.timestep == 1 + int(six[0] * 999)


def test_noise_of_a_row_depends_on_its_seed_and_stream_alone() -> None:
    together = normal_per_seed(torch.tensor([5, 6, 7]), (4, 8, 8), stream="noise")
    alone = normal_per_seed(torch.tensor([6]), (4, 8, 8), stream="noise")
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(alone, normal_per_seed(torch.tensor([6]), (4, 8, 8), stream="posterior-0"))


def test_seeds_depend_on_every_part_and_its_place() -> None:
    parts = [(1, 2), (2, 1), (1, 2, 0), (12,), ("1", "2", "x"), (0, 1, 2)]
    assert len({derive_seed(*p) for p in parts}) == len(parts)
    assert all(0 <= derive_seed(*p) < 2**63 for p in parts)
    assert derive_seed(0, "visit", 1, 2) == 2950334966123193347  # changing this changes every run


def test_linked_visits_share_a_pair_and_its_draws_at_timesteps_equally_far_apart() -> None:
    examples = [example_at(position, num_pairs=7, order=ExampleOrder(0, chain_length=4)) for position in range(7 * 4)]
    assert [example.chain_index for example in examples[:5]] == [0, 1, 2, 3, 0]
    for chain in (examples[i : i + 4] for i in range(0, 28, 4)):
        assert len({(example.row, example.seed) for example in chain}) == 1
        draws = [draws_of(v, min_timestep=100, max_timestep=899, caption_dropout=0.5, chain_length=4) for v in chain]
        first, *rest = [draw.timestep for draw in draws]
        assert 100 <= first < 300
        assert rest == [first + 200, first + 400, first + 600]
        assert len({(d.drop_caption, d.flips, d.crops, d.shown) for d in draws}) == 1
    assert sorted(example.row for example in examples) == sorted(list(range(7)) * 4)


def test_a_visit_without_links_is_what_it_was() -> None:
    alone = example_at(11, num_pairs=7, order=ExampleOrder(0))
    settings = {"min_timestep": 1, "max_timestep": 999, "caption_dropout": 0.2}
    assert draws_of(alone, **settings, chain_length=1) == draws_of(alone, **settings)


def test_after_its_rounds_a_pair_has_the_same_draws_again() -> None:
    seeds: dict[int, list[int]] = {}
    for position in range(7 * 6):
        example = example_at(position, num_pairs=7, order=ExampleOrder(0, reuse_epochs=2))
        assert example.draw_epoch == position // 7 % 2
        seeds.setdefault(example.row, []).append(example.seed)
    for first, second, *later in seeds.values():
        assert first != second
        assert later == [first, second] * 2


@pytest.mark.parametrize(("chain_length", "reuse_epochs", "distinct"), [
    (1, 1, 7), (1, 3, 21), (2, 2, 28), (1, None, 50),
])
def test_examples_that_differ_come_before_those_that_come_again(
    chain_length: int, reuse_epochs: int | None, distinct: int
) -> None:
    """The first position of an example is where it first is; of 50 examples of seven pairs so many differ."""
    order = ExampleOrder(0, chain_length=chain_length, reuse_epochs=reuse_epochs)
    examples = [example_at(position, num_pairs=7, order=order) for position in range(50)]
    firsts = [first_position(example, num_pairs=7, order=order) for example in examples]
    assert firsts == [examples.index(example) for example in examples]
    assert sorted(set(firsts)) == list(range(distinct)) and firsts[:distinct] == list(range(distinct))
    assert distinct_examples(50, num_pairs=7, order=order) == distinct
    assert distinct_examples(5, num_pairs=7, order=order) == 5
