"""A loss or gradient that is not finite stops the run before it touches the weights, and names the pairs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smpo.core.errors import NonFiniteError
from smpo.preparation.cache import LatentCache
from smpo.training.checkpoint import load_checkpoint
from smpo.training.learners.preference import PreferenceLearner
from smpo.training.run import Run
from smpo.training.sources.order import ExampleOrder, example_at
from smpo.training.trainer import train

MakeRun = Callable[..., Run]


class DamagedCache(LatentCache):
    """A cache with NaN in one pair."""

    def __init__(self, folder: Path, bad_row: int) -> None:
        super().__init__(folder)
        self.bad_row = bad_row

    def moments(self, pair: int, image: int, view: int) -> tuple[Tensor, Tensor]:
        mean, std = super().moments(pair, image, view)
        return (mean * float("nan"), std) if pair == self.bad_row else (mean, std)


def row_at(run: Run, position: int) -> int:
    return example_at(position, num_pairs=len(run.pairs), order=ExampleOrder(run.seed)).row


def same_weights(run: Run, other: Run) -> bool:
    ours, theirs = (load_checkpoint(r.checkpoints) for r in (run, other))
    return ours.step == theirs.step and all(
        torch.equal(ours.tensors[stem][name], tensor)
        for stem in theirs.tensors for name, tensor in theirs.tensors[stem].items()
    )


def damaged(run: Run, *, position: int) -> tuple[Run, str]:
    """`run` with NaN in the pair at `position`, and that pair's name."""
    row = row_at(run, position)
    cache = DamagedCache(run.cache.folder, run.pairs.cache_rows[row])
    return replace(run, cache=cache), run.pairs.pair_ids[row]


def test_nan_latents_stop_the_run_and_name_step_and_pair_alone(
    new_run: MakeRun, updates: list[dict[str, float]]
) -> None:
    """The pair at position 6 comes in step 2 (of four pairs each), in its second micro-batch."""
    good = new_run("good", steps=1)
    bad, pair_id = damaged(new_run("bad", steps=3), position=6)
    train(good)
    updates.clear()
    with pytest.raises(NonFiniteError, match=f"1 losses are not finite at step 2 .examples {pair_id}.;"):
        train(bad)
    assert len(updates) == 1  # that of step 1
    assert same_weights(bad, good)
    assert not bad.model_folder.exists()
    with pytest.raises(NonFiniteError, match="at step 2"):  # and trying again changes nothing
        train(bad)
    assert same_weights(bad, good)


def test_an_infinite_gradient_stops_the_run_and_names_all_pairs_of_the_step(
    new_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = new_run("good", steps=2), new_run("bad", steps=4)
    train(good)
    step, calls = PreferenceLearner.loss, []

    def exploding(*arguments: Any) -> Any:
        output = step(*arguments)
        calls.append(1)
        if len(calls) == 6:  # the second micro-batch of step 3
            output.loss.register_hook(lambda gradient: gradient * float("inf"))
        return output

    monkeypatch.setattr(PreferenceLearner, "loss", exploding)
    with pytest.raises(NonFiniteError, match="the gradient is not finite at step 3") as error:
        train(bad)
    assert all(bad.pairs.pair_ids[row_at(bad, position)] in str(error.value) for position in range(8, 12))
    assert same_weights(bad, good)
