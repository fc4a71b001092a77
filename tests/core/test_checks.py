"""Argument checks: exact one-line messages."""

from collections.abc import Callable

import pytest
import torch

from smpo.core.checks import (
    check_batch,
    check_fraction,
    check_known,
    check_positive,
    check_same_shape,
    did_you_mean,
)
from smpo.core.errors import ConfigError, DataError, NonFiniteError, SmpoError, StaleError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("call", "message"), [
    (lambda: check_known("smp", ["smpo", "dpo"], what="objective"),
     "unknown objective 'smp'; known: smpo, dpo. Did you mean 'smpo'?"),
    (lambda: check_known("zzz", ["smpo", "dpo"], what="objective"), "unknown objective 'zzz'; known: smpo, dpo."),
    (lambda: check_positive(beta=0), "beta must be a finite number > 0, got 0"),
    (lambda: check_positive(beta=1.0, gamma=-2.0), "gamma must be a finite number > 0, got -2.0"),
    (lambda: check_positive(beta=NAN), "beta must be a finite number > 0, got nan"),
    (lambda: check_positive(beta=INF), "beta must be a finite number > 0, got inf"),
    (lambda: check_fraction(p=1.01), "p must lie in [0, 1], got 1.01"),
    (lambda: check_fraction(p=0.5, q=-0.1), "q must lie in [0, 1], got -0.1"),
    (lambda: check_fraction(p=NAN), "p must lie in [0, 1], got nan"),
])
def test_unusable_settings_raise_config_errors(call: Callable[[], None], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value) == message


@pytest.mark.parametrize(("call", "message"), [
    (lambda: check_same_shape(a=torch.ones(2, 3), b=torch.ones(3, 2)), "shapes must be equal, got a (2, 3), b (3, 2)"),
    (lambda: check_batch(a=torch.ones(2, 1)), "a must have shape (B,), got (2, 1); pass one number per pair"),
    (lambda: check_batch(a=torch.ones(())), "a must have shape (B,), got (); pass one number per pair"),
    (lambda: check_batch(a=torch.ones(2), b=torch.ones(1)), "shapes must be equal, got a (2,), b (1,)"),
])
def test_wrong_shapes_raise(call: Callable[[], None], message: str) -> None:
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message


def test_usable_values_pass() -> None:
    check_known("dpo", iter(["smpo", "dpo"]), what="objective")
    check_positive(beta=1e-12, gamma=3)
    check_fraction(p=0, q=1, r=0.5)
    check_same_shape(a=torch.ones(2), b=torch.zeros(2))
    check_batch(a=torch.ones(2), b=torch.zeros(2))


def test_hint_names_the_nearest_or_nothing() -> None:
    assert did_you_mean("warmpu", ["lr", "warmup"]) == " Did you mean 'warmup'?"
    assert did_you_mean("x", ["lr", "warmup"]) == ""


@pytest.mark.parametrize("kind", [ConfigError, DataError, StaleError, NonFiniteError])
def test_users_errors_are_value_errors(kind: type[Exception]) -> None:
    assert issubclass(kind, SmpoError) and issubclass(kind, ValueError)
