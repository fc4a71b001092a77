"""Random draws as functions of numbers: golden values, independence of everything else."""

import hashlib

import numpy as np
import torch

from smpo.core.randomness import derive_seed, generator, normal_per_seed


def test_seeds_are_stable() -> None:
    """Golden: the upper 63 bits of the big-endian 8-byte blake2b of the parts joined by "/"."""
    assert derive_seed(0) == 4761921975702974394
    assert derive_seed(7, "noise") == 1595659848411521608
    digest = hashlib.blake2b(b"7/noise", digest_size=8).hexdigest()
    assert derive_seed(7, "noise") == int(digest, 16) // 2


def test_draws_are_stable() -> None:
    """Golden: torch's CPU generator (mt19937) is part of what makes an old run resumable."""
    draw = normal_per_seed(torch.tensor([7]), (3,), stream="noise")[0]
    np.testing.assert_allclose(draw, [-0.23228459, 1.09211361, 0.59837091], atol=1e-6)


def test_seeds_depend_on_every_part_and_on_their_order() -> None:
    seeds = [derive_seed(*parts) for parts in ((1, 2), (2, 1), (1,), (12,), (1, 2, 0), ("a", 1), (1, "a"), ())]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_do_not_collide_over_a_run() -> None:
    assert len({derive_seed(0, "order", i) for i in range(20_000)}) == 20_000


def test_draws_do_not_depend_on_the_global_state_nor_change_it() -> None:
    torch.manual_seed(1)
    first = torch.randn(2, generator=generator(3, "x"))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(torch.randn(2, generator=generator(3, "x")), first)
    normal_per_seed(torch.tensor([1, 2]), (4,), stream="noise")
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_depend_on_their_seed_and_stream_alone() -> None:
    together = normal_per_seed(torch.tensor([5, 6, 2**62]), (2, 3), stream="noise")
    assert together.shape == (3, 2, 3) and together.dtype == torch.float32 and together.device.type == "cpu"
    assert torch.equal(normal_per_seed(torch.tensor([2**62]), (2, 3), stream="noise"), together[2:])
    assert not torch.equal(normal_per_seed(torch.tensor([5]), (2, 3), stream="other"), together[:1])


def test_draws_are_standard_normal() -> None:
    """100 seeds of 100 draws: mean within 4 / 100, variance within 4 sqrt(2) / 100; each row's first draw as well."""
    draws = normal_per_seed(torch.arange(100), (100,), stream="noise").double()
    assert abs(draws.mean()) < 0.04 and abs(draws.var() - 1) < 0.057
    assert abs(draws[:, 0].mean()) < 0.4 and abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.4
