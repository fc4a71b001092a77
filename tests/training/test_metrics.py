"""What is summed over a step, by hand, and the lines that are kept."""

import json
import math
from pathlib import Path

import pytest
import torch
from smpo.training.step import Evaluations, StepOutput

from smpo.core.records import PairErrors
from smpo.training.metrics import SUMS, MetricsLog, step_sums, summarise


def output() -> StepOutput:
    """Three pairs. Error deltas (w, l): (-0.25, 0.25), (0.5, 0.25), (0, 0); logits 2, -1, 0; 6 + 12 evaluations."""
    errors = PairErrors(
        policy_w=torch.tensor([0.25, 1.0, 0.5]), policy_l=torch.tensor([0.75, 1.0, 0.5]),
        reference_w=torch.tensor([0.5, 0.5, 0.5]), reference_l=torch.tensor([0.5, 0.75, 0.5]),
    )
    return StepOutput(torch.tensor([0.25, 1.0, 0.75]), torch.tensor([2.0, -1.0, 0.0]), errors, Evaluations(6, 12))


def test_means_by_hand() -> None:
    """Right are: the first, not the second, and half of the third, whose logit is zero."""
    means = summarise(step_sums(output(), torch.tensor([0.9, 0.9, 0.9])))
    expected = {
        "loss": 2 / 3, "error_w": 1.75 / 3, "error_l": 2.25 / 3, "implicit_accuracy": 0.5, "logit_mean": 1 / 3,
        "logit_std": math.sqrt(5 / 3 - 1 / 9), "error_delta_w": 0.25 / 3, "error_delta_l": 0.5 / 3,
        "nfe_grad": 2.0, "nfe_no_grad": 4.0,
    }
    assert means == pytest.approx(expected)


def test_pairs_without_preference_are_not_judged() -> None:
    """p = 1/2 drops the first, right pair; of the others one is wrong and one half right. p < 1/2 is in the logit."""
    assert summarise(step_sums(output(), torch.tensor([0.5, 0.2, 0.9])))["implicit_accuracy"] == 0.25


def test_images_shown_alone_count_as_what_they_are() -> None:
    """Errors 0.25, 1 and 0.5 of a winner, a loser, a winner; all against a reference of 0.5, with k = 0.125."""
    errors = PairErrors(
        policy_w=torch.tensor([0.25, 1.0, 0.5]), reference_w=torch.full((3,), 0.5), reference_point=torch.tensor(0.125))
    alone = StepOutput(torch.ones(3), torch.tensor([2.0, 1.0, -1.0]), errors, Evaluations(3, 3))
    means = summarise(step_sums(alone, torch.tensor([1.0, 0.0, 1.0])))
    assert means == pytest.approx({
        "loss": 1.0, "error_w": 0.375, "error_l": 1.0, "error_delta_w": -0.125, "error_delta_l": 0.5,
        "implicit_accuracy": 2 / 3, "logit_mean": 2 / 3, "logit_std": math.sqrt(2 - 4 / 9), "reference_point": 0.125,
        "desirable_share": 2 / 3, "nfe_grad": 1.0, "nfe_no_grad": 1.0,
    })


def test_without_a_reference_there_are_no_deltas() -> None:
    """MaPO: two images, a logit, no reference."""
    errors = PairErrors(policy_w=torch.tensor([0.25]), policy_l=torch.tensor([0.5]))
    means = summarise(step_sums(StepOutput(torch.ones(1), torch.ones(1), errors, Evaluations(2, 0)), torch.ones(1)))
    assert means == {
        "loss": 1.0, "error_w": 0.25, "error_l": 0.5, "implicit_accuracy": 1.0, "logit_mean": 1.0, "logit_std": 0.0,
        "nfe_grad": 2.0, "nfe_no_grad": 0.0,
    }


def test_sums_of_micro_batches_add_up() -> None:
    p_winner = torch.tensor([0.9, 0.5, 0.2])
    whole = step_sums(output(), p_winner)
    assert whole[SUMS.index("pairs")] == 3
    assert torch.equal(summarised(whole + whole), summarised(whole))


def summarised(sums: torch.Tensor) -> torch.Tensor:
    return torch.tensor(list(summarise(sums).values()), dtype=torch.float64)


def test_sft_has_no_preference_metrics() -> None:
    loss = torch.tensor([0.5, 0.25])
    means = summarise(step_sums(StepOutput(loss, None, PairErrors(policy_w=loss), Evaluations(2, 0)), torch.ones(2)))
    assert means == {"loss": 0.375, "error_w": 0.375, "nfe_grad": 1.0, "nfe_no_grad": 0.0}


def test_non_finite_losses_are_counted() -> None:
    loss = torch.tensor([0.5, float("nan"), float("inf")])
    output = StepOutput(loss, None, PairErrors(policy_w=loss), Evaluations(3, 0))
    assert step_sums(output, torch.ones(3))[SUMS.index("bad")] == 2


def test_reopening_drops_later_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, resume_step=0)
    for step in range(1, 6):
        log.append({"step": step})
    with open(path, "a") as file:
        file.write('{"step": 2')
    MetricsLog(path, resume_step=3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
