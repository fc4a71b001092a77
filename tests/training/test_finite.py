"""What is not finite is not saved."""

import pytest
import torch

from smpo.core.artefacts import is_complete
from smpo.core.errors import BusyError, NonFiniteError
from smpo.core.locks import sole_writer
from smpo.training.checkpoint import checkpoints
from smpo.training.policy.finite import check_finite, non_finite
from smpo.training.trainer import train
from tests.training.outcomes import exit_code


def test_the_tensors_with_a_nan_or_infinite_value_are_named() -> None:
    fine = {"a": torch.tensor([1e38, -1e38]), "b": torch.tensor([1, 2]), "c": torch.empty(0)}
    bad = {"d": torch.tensor([0.0, float("nan")]), "e": torch.tensor([float("-inf")], dtype=torch.float16)}
    assert non_finite({**fine, **bad}) == ["d", "e"]
    check_finite([], step=1, what="weights are", checkpoints="c")
    with pytest.raises(NonFiniteError, match=r"weights are not finite after step 3 \(d and 1 more\); nothing of it is"):
        check_finite(["d", "e"], step=3, what="weights are", checkpoints="c")


@pytest.mark.parametrize("changes", [
    {}, {"ema_decay": 0.5}, {"lora": {"rank": 1}}, {"checkpoint_every": 5},
])
def test_an_update_beyond_all_numbers_publishes_nothing(new_run, changes: dict) -> None:
    run = new_run("run", steps=1, optimizer={"lr": 1e308}, **changes)
    with pytest.raises(NonFiniteError, match=r"^weights are not finite after step 1 \(policy .* more\); nothing"):
        train(run)
    assert not is_complete(run.folder) and not checkpoints(run.checkpoints) and not run.model_folder.exists()


def test_two_trainings_in_one_folder(new_run, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run("run", steps=1)
    with sole_writer(run.folder):
        def second() -> None:
            with pytest.raises(BusyError, match="is being written by process"):
                train(run)

        assert exit_code(second) == 0
    train(run)
