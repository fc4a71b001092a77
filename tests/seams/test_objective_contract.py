"""The rules of `smpo.objectives.objective.Objective`, checked for every member of OBJECTIVES.

A new member fails here until it is documented and its sign, its tails and its batches are right.
"""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smpo.core.errors import ConfigError
from smpo.core.records import PairErrors
from smpo.objectives import OBJECTIVES
from smpo.objectives.objective import Loss, Objective
from tests.maths.references import draw

DOCS = Path(__file__).parents[2] / "docs"
PAIRS = 6
EVERY = pytest.mark.parametrize("name", list(OBJECTIVES))


def built(name: str) -> Objective:
    """The member with its defaults."""
    return OBJECTIVES.build({"name": name})


def errors_of(objective: Objective, rows: Tensor) -> PairErrors:
    """The errors in `rows`, shape (4, B), as far as an example of this objective has them."""
    w, loser, ref_w, ref_l = rows
    alone = objective.winner_share is not None
    errors = PairErrors(
        w, None if alone else loser, ref_w if objective.needs_reference else None,
        ref_l if objective.needs_reference and not alone else None,
    )
    return replace(errors, pool=objective.pooled(errors)) if objective.needs_pool else errors


def labels_of(objective: Objective) -> Tensor:
    """Soft labels where these are taken; else winners, and losers where one image is shown."""
    if objective.takes_smoothed_labels:
        return torch.linspace(0.55, 0.95, PAIRS, dtype=torch.float64)
    shown_losers = objective.winner_share not in (None, 1.0)
    return torch.tensor([1.0, 0.0] * (PAIRS // 2) if shown_losers else [1.0] * PAIRS, dtype=torch.float64)


def rows() -> Tensor:
    return 0.2 + 0.001 * draw(4, PAIRS)


def called(objective: Objective, values: Tensor, labels: Tensor | None = None) -> Loss:
    return objective(errors_of(objective, values), labels_of(objective) if labels is None else labels)


@EVERY
def test_every_example_has_a_loss_of_its_own(name: str) -> None:
    """Shape (B,), and a batch gives what its examples give alone, under the same pool."""
    objective, values = built(name), rows()
    errors, labels = errors_of(objective, values), labels_of(objective)
    together = objective(errors, labels)
    assert together.value.shape == (PAIRS,) and all(m.shape == (PAIRS,) for m in together.metrics.values())
    for row in range(PAIRS):
        own = replace(errors_of(objective, values[:, row : row + 1]), pool=errors.pool)
        alone = objective(own, labels[row : row + 1])
        torch.testing.assert_close(alone.value[0], together.value[row], rtol=1e-12, atol=1e-12)
        if together.logit is not None:
            torch.testing.assert_close(alone.logit[0], together.logit[row], rtol=1e-12, atol=1e-12)


@EVERY
def test_the_loss_falls_where_the_policy_fits_the_better_image(name: str) -> None:
    """At the start, where policy and reference are equal: down the gradient the winner's error falls and the loser's
    rises; a loser shown alone is pushed away.
    """
    objective = built(name)
    values = rows()[[0, 1, 0, 1]].requires_grad_()
    called(objective, values).value.sum().backward()
    winner, loser, *reference = values.grad
    signs = torch.where(labels_of(objective) > 0.5, 1.0, -1.0)
    assert (signs * winner > 0).all()
    assert (loser < 0).all() if objective.winner_share is None else not loser.any()
    if not objective.needs_reference:
        assert not any(part.any() for part in reference)


@EVERY
def test_the_gradient_is_that_of_the_loss(name: str) -> None:
    """By finite differences in float64; Linear-DPO says that its slope is a constant to the gradient."""
    objective, values = built(name), rows()
    pool = errors_of(objective, values).pool
    if name == "linear":
        pytest.skip("the stated gradient is tested by hand in tests/maths/test_pairwise_losses.py")

    def loss(policy: Tensor) -> Tensor:
        errors = errors_of(objective, torch.cat([policy, values[2:]]))
        return objective(replace(errors, pool=pool), labels_of(objective)).value

    assert torch.autograd.gradcheck(loss, values[:2].clone().requires_grad_(), eps=1e-7, atol=1e-3, rtol=1e-3)


@EVERY
@pytest.mark.parametrize("size", [0.0, 1e-12, 1e2])
def test_far_tails_and_no_difference_stay_finite(name: str, size: float) -> None:
    objective = built(name)
    values = (0.5 + size * torch.tensor([[1.0], [0.0], [0.5], [0.5]], dtype=torch.float64)).repeat(1, PAIRS)
    for one in (values, values[[1, 0, 2, 3]]):
        one = one.clone().requires_grad_()
        value = called(objective, one).value
        value.sum().backward()
        assert value.isfinite().all() and one.grad.isfinite().all()


@EVERY
def test_bad_settings_are_refused_in_one_line(name: str) -> None:
    objective = built(name)
    numbers = [f.name for f in fields(objective) if isinstance(getattr(objective, f.name), float)]
    for setting in numbers:
        with pytest.raises(ConfigError) as error:
            OBJECTIVES.build({"name": name, setting: -1.0})
        assert str(error.value).count("\n") == 0 and setting in str(error.value)


@EVERY
def test_what_a_member_needs_and_it_is_given_nothing_of_is_said(name: str) -> None:
    """An objective with a pool refuses errors without one; one without says that it pools nothing."""
    objective = built(name)
    errors = errors_of(objective, rows())
    if objective.needs_pool:
        with pytest.raises(ValueError, match="pool"):
            objective(replace(errors, pool=None), labels_of(objective))
    else:
        with pytest.raises(NotImplementedError, match="pools nothing"):
            objective.pooled(errors)


@EVERY
def test_every_member_is_documented(name: str) -> None:
    assert f"`{name}`" in (DOCS / "equations.md").read_text()
    member = type(built(name))
    assert member.__doc__ and member.__module__.startswith("smpo.objectives.")
