"""What the learner logs of a micro-batch, by hand."""

import math

import pytest
import torch

from smpo.core.records import PairErrors
from smpo.noising.forward import Forward
from smpo.objectives.objective import Loss
from smpo.objectives.sft import SFT
from smpo.training.learners.preference import NFE, PreferenceLearner, sums_of
from smpo.training.metrics import MeanTable
from tests.training.test_step import Spy

LEARNER = PreferenceLearner(Spy(None), Forward(), SFT())
"""How sums are summarised does not depend on the parts."""


def logged(loss: Loss, errors: PairErrors, p_winner: list[float], nfe: NFE) -> dict[str, float]:
    """What a step of this one micro-batch logs."""
    table = MeanTable()
    table.add(sums_of(loss, errors, torch.tensor(p_winner), nfe))
    return LEARNER.summarise(table.means(table.sums))


ERRORS = PairErrors(
    policy_w=torch.tensor([0.25, 1.0, 0.5]), policy_l=torch.tensor([0.75, 1.0, 0.5]),
    reference_w=torch.tensor([0.5, 0.5, 0.5]), reference_l=torch.tensor([0.5, 0.75, 0.5]),
)
"""Three pairs. Error deltas (w, l): (-0.25, 0.25), (0.5, 0.25), (0, 0)."""
LOSS = Loss(torch.tensor([0.25, 1.0, 0.75]), torch.tensor([2.0, -1.0, 0.0]))


def test_means_by_hand() -> None:
    """Right are: the first, not the second, and half of the third, whose logit is zero. 6 + 12 evaluations."""
    assert logged(LOSS, ERRORS, [0.9, 0.9, 0.9], NFE(6, 12)) == pytest.approx({
        "loss": 2 / 3, "error_w": 1.75 / 3, "error_l": 2.25 / 3, "implicit_accuracy": 0.5, "logit_mean": 1 / 3,
        "logit_std": math.sqrt(5 / 3 - 1 / 9), "error_delta_w": 0.25 / 3, "error_delta_l": 0.5 / 3,
        "nfe_grad": 2.0, "nfe_no_grad": 4.0,
    })


def test_pairs_without_preference_are_not_judged() -> None:
    """p = 1/2 drops the first, right pair; of the others one is wrong and one half right. p < 1/2 is in the logit."""
    assert logged(LOSS, ERRORS, [0.5, 0.2, 0.9], NFE(6, 12))["implicit_accuracy"] == 0.25
    none = logged(LOSS, ERRORS, [0.5, 0.5, 0.5], NFE(6, 12))
    assert not {"implicit_accuracy", "logit_mean", "logit", "logit_squared"} & none.keys()


def test_images_shown_alone_count_as_what_they_are_and_metrics_of_the_objective_are_means() -> None:
    """Errors 0.25, 1 and 0.5 of a winner, a loser, a winner; all against a reference of 0.5."""
    errors = PairErrors(policy_w=torch.tensor([0.25, 1.0, 0.5]), reference_w=torch.full((3,), 0.5))
    loss = Loss(torch.ones(3), torch.tensor([2.0, 1.0, -1.0]), {"desirable_share": torch.tensor([1.0, 0.0, 1.0])})
    assert logged(loss, errors, [1.0, 0.0, 1.0], NFE(3, 3)) == pytest.approx({
        "loss": 1.0, "error_w": 0.375, "error_l": 1.0, "error_delta_w": -0.125, "error_delta_l": 0.5,
        "implicit_accuracy": 2 / 3, "logit_mean": 2 / 3, "logit_std": math.sqrt(2 - 4 / 9),
        "desirable_share": 2 / 3, "nfe_grad": 1.0, "nfe_no_grad": 1.0,
    })


def test_without_a_reference_there_are_no_deltas() -> None:
    """MaPO: two images, a logit, no reference."""
    errors = PairErrors(policy_w=torch.tensor([0.25]), policy_l=torch.tensor([0.5]))
    assert logged(Loss(torch.ones(1), torch.ones(1)), errors, [1.0], NFE(2, 0)) == {
        "loss": 1.0, "error_w": 0.25, "error_l": 0.5, "implicit_accuracy": 1.0, "logit_mean": 1.0, "logit_std": 0.0,
        "nfe_grad": 2.0, "nfe_no_grad": 0.0,
    }


def test_without_a_logit_there_is_no_preference_metric() -> None:
    loss = torch.tensor([0.5, 0.25])
    assert logged(Loss(loss), PairErrors(policy_w=loss), [1.0, 1.0], NFE(2, 0)) == {
        "loss": 0.375, "error_w": 0.375, "nfe_grad": 1.0, "nfe_no_grad": 0.0,
    }
