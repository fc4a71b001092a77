"""The frozen records: layout of the sides and conditioning rows."""

import dataclasses

import pytest
import torch

from smpo.core.records import Conditioning, PairErrors, flatten_sides, unflatten_sides
from tests.seams.batches import batch_of


def test_flattening_puts_all_winners_before_all_losers() -> None:
    """METHODS 1.5: [w_1 .. w_B, l_1 .. l_B], not interleaved."""
    sides = torch.tensor([[[1.0], [2.0], [3.0]], [[-1.0], [-2.0], [-3.0]]])
    flat = flatten_sides(sides)
    assert flat.flatten().tolist() == [1, 2, 3, -1, -2, -3]
    assert torch.equal(unflatten_sides(flat, 2), sides)
    assert unflatten_sides(flat, 1).shape == (1, 6, 1)


def test_conditioning_rows_by_index_and_by_mask() -> None:
    given = Conditioning({"a": torch.arange(4), "b": torch.arange(8).view(4, 2)})
    assert len(given) == 4
    picked = given.rows(torch.tensor([3, 1]))
    assert picked.tensors["a"].tolist() == [3, 1] and picked.tensors["b"].tolist() == [[6, 7], [2, 3]]
    masked = given.rows(torch.tensor([False, True, False, False]))
    assert masked.tensors["a"].tolist() == [1] and len(masked) == 1


def test_moving_a_batch_leaves_seeds_and_timesteps_on_the_cpu() -> None:
    moved = batch_of().to(torch.device("meta"))
    assert moved.x_0.is_meta and moved.p_winner.is_meta
    assert moved.conditioning.tensors["hidden"].is_meta and moved.null_conditioning.tensors["hidden"].is_meta
    assert not moved.seeds.is_meta and not moved.timesteps.is_meta


@pytest.mark.parametrize("record", [batch_of(), Conditioning({}), PairErrors(policy_w=torch.ones(1))])
def test_records_are_frozen(record: object) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, None)
