"""What is summed over a step, by hand, and the lines that are kept."""

import json
import math
from pathlib import Path

import pytest
import torch

from smpo.records import PairErrors
from smpo.training.metrics import SUMS, MetricsLog, step_sums, summarise
from smpo.training.step import StepOutput


def output() -> StepOutput:
    """Three pairs. Error deltas (w, l): (-0.25, 0.25), (0.5, 0.25), (0, 0); margins l - w: 0.5, -0.25, 0."""
    errors = PairErrors(
        policy_w=torch.tensor([0.25, 1.0, 0.5]), policy_l=torch.tensor([0.75, 1.0, 0.5]),
        reference_w=torch.tensor([0.5, 0.5, 0.5]), reference_l=torch.tensor([0.5, 0.75, 0.5]),
    )
    return StepOutput(torch.tensor([0.25, 1.0, 0.75]), torch.tensor([2.0, -1.0, 0.0]), errors)


def test_means_by_hand() -> None:
    """Right are: the first, not the second, and half of the third, whose margin is zero."""
    means = summarise(step_sums(output(), torch.tensor([0.9, 0.9, 0.9])))
    expected = {
        "loss": 2 / 3, "error_w": 1.75 / 3, "error_l": 2.25 / 3, "implicit_accuracy": 0.5, "logit_mean": 1 / 3,
        "logit_std": math.sqrt(5 / 3 - 1 / 9), "error_delta_w": 0.25 / 3, "error_delta_l": 0.5 / 3,
    }
    assert means == pytest.approx(expected)


def test_pairs_without_preference_are_not_judged_and_losers_likelier_than_not_count_the_other_way() -> None:
    """p = 1/2 drops the first pair; p < 1/2 turns the second into a right one; the third stays half."""
    means = summarise(step_sums(output(), torch.tensor([0.5, 0.2, 0.9])))
    assert means["implicit_accuracy"] == 0.75


def test_sums_of_micro_batches_add_up() -> None:
    p_winner = torch.tensor([0.9, 0.5, 0.2])
    whole = step_sums(output(), p_winner)
    assert whole[SUMS.index("pairs")] == 3
    assert torch.equal(summarised(whole + whole), summarised(whole))


def summarised(sums: torch.Tensor) -> torch.Tensor:
    return torch.tensor(list(summarise(sums).values()), dtype=torch.float64)


def test_sft_has_no_preference_metrics() -> None:
    loss = torch.tensor([0.5, 0.25])
    means = summarise(step_sums(StepOutput(loss, None, PairErrors(policy_w=loss)), torch.ones(2)))
    assert means == {"loss": 0.375, "error_w": 0.375}


def test_non_finite_losses_are_counted() -> None:
    loss = torch.tensor([0.5, float("nan"), float("inf")])
    assert step_sums(StepOutput(loss, None, PairErrors(policy_w=loss)), torch.ones(3))[SUMS.index("bad")] == 2


def test_reopening_drops_later_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, resume_step=0)
    for step in range(1, 6):
        log.append({"step": step})
    with open(path, "a") as file:
        file.write('{"step": 2')
    MetricsLog(path, resume_step=3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
