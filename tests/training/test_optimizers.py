"""Learning rate by hand, and what the optimizer is really given."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from smpo.core.errors import ConfigError
from smpo.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from smpo.training.options import OptimizerOptions
from smpo.training.policy.optimizers import build_optimizer, learning_rate, optimizer_tensors, restore_optimizer
from smpo.training.run import Run
from smpo.training.trainer import train

MakeRun = Callable[..., Run]


def rates(total: int, **settings: Any) -> list[float]:
    options = OptimizerOptions(lr=8.0, **settings)
    return [learning_rate(step, total=total, options=options) for step in range(total)]


def test_constant_rate_after_linear_warm_up() -> None:
    """Warm-up over 4: 8/4, 16/4, 24/4, 32/4; the first update already moves, the fourth has the whole rate."""
    assert rates(6, warmup_steps=4) == [2, 4, 6, 8, 8, 8]


def test_linear_schedule() -> None:
    """From 8 after the warm-up to 0 at step `total`, which is never taken: 8 (1 - k/4), k = 0..3."""
    assert rates(6, warmup_steps=2, schedule="linear") == [4, 8, 8, 6, 4, 2]


def test_cosine_schedule() -> None:
    """8/2 (1 + cos(pi k/4)) = 8, 4 + 2 sqrt 2, 4, 4 - 2 sqrt 2."""
    assert rates(4, schedule="cosine") == pytest.approx([8, 4 + 8**0.5, 4, 4 - 8**0.5])


def test_a_warm_up_longer_than_the_run_never_reaches_the_rate() -> None:
    assert rates(2, warmup_steps=4) == [2, 4]


def logged(run: Run, key: str) -> list[float]:
    return [json.loads(line)[key] for line in run.metrics_path.read_text().splitlines()]


@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_warm_up_counts_optimizer_steps_whatever_the_accumulation(
    new_run: MakeRun, updates: list[dict[str, float]], micro_batch_size: int
) -> None:
    optimizer = {"lr": 4e-4, "warmup_steps": 4}
    run = new_run("run", steps=5, optimizer=optimizer, micro_batch_size=micro_batch_size)
    train(run)
    assert [update["lr"] for update in updates] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4, 4e-4])
    assert logged(run, "lr") == [update["lr"] for update in updates]


def test_gradients_are_clipped_and_the_norm_before_is_logged(
    new_run: MakeRun, updates: list[dict[str, float]]
) -> None:
    free = new_run("free", steps=2, optimizer={"lr": 1e-9, "max_grad_norm": 1e9})
    clipped = new_run("clipped", steps=2, optimizer={"lr": 1e-9, "max_grad_norm": 0.5})
    train(free)
    train(clipped)
    assert [update["norm"] for update in updates[:2]] == pytest.approx(logged(free, "grad_norm"), rel=1e-4)
    assert min(logged(free, "grad_norm")) > 1
    assert [update["norm"] for update in updates[2:]] == pytest.approx([0.5, 0.5], rel=1e-4)
    assert logged(clipped, "grad_norm") == pytest.approx(logged(free, "grad_norm"), rel=1e-4)


OPTIMIZERS = [{"name": "adamw"}, {"name": "adafactor"}, {"name": "adamw", "fused": True}, {"name": "adamw_8bit"}]


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=str)
def test_optimizer_state_survives_the_round_trip_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    """Through the checkpoint's file, into parameters of the same memory layout, channels last among them."""
    if settings["name"] == "adamw_8bit":
        pytest.importorskip("bitsandbytes")

    def updated(parameters: list[torch.nn.Parameter], optimizer: Optimizer, times: int) -> None:
        for _ in range(times):
            sum(p.square().sum() for p in parameters).backward()
            optimizer.step()
            optimizer.zero_grad()

    options = OptimizerOptions(**settings, lr=1e-2)
    torch.manual_seed(0)
    image = torch.randn(32, 16, 3, 3).to(memory_format=torch.channels_last)  # large enough for 8 bits
    parameters = [torch.nn.Parameter(tensor) for tensor in (torch.randn(4, 3), torch.randn(5), image)]
    optimizer = build_optimizer(parameters, options)
    updated(parameters, optimizer, 3)
    tensors, scalars = optimizer_tensors(optimizer)
    save_checkpoint(tmp_path, TrainState(3, {"policy": {"weight": torch.zeros(1)}, "optimizer": tensors}), keep=1)
    tensors = load_checkpoint(tmp_path).tensors["optimizer"]
    copies = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    restored = build_optimizer(copies, options)
    restore_optimizer(restored, tensors, json.loads(json.dumps(scalars)))
    updated(parameters, optimizer, 3)
    updated(copies, restored, 3)
    assert all(torch.equal(a, b) for a, b in zip(parameters, copies, strict=True))
    assert {key for state in restored.state.values() for key in state} >= {
        "adamw_8bit": {"state1", "qmap1", "absmax1"}, "adamw": {"exp_avg"}, "adafactor": {"exp_avg_sq_row"}
    }[settings["name"]]


def test_8_bits_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError) as error:
        build_optimizer([torch.nn.Parameter(torch.ones(3))], OptimizerOptions(name="adamw_8bit", lr=1.0))
    assert str(error.value) == (
        "training.optimizer.name=adamw_8bit needs the package bitsandbytes, not installed; pip install 'smpo[8bit]'"
    )


def test_8_bits_go_where_32_go() -> None:
    """Twenty steps towards a minimum, from one place: 4 % of the way apart."""
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    start, ends = torch.randn(64, 128), []
    for name in ("adamw", "adamw_8bit"):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = build_optimizer([parameter], OptimizerOptions(name=name, lr=1e-2))
        for _ in range(20):
            parameter.grad = 2 * parameter.detach()
            optimizer.step()
        ends.append(parameter.detach())
    assert (ends[0] - ends[1]).norm() < 0.06 * (ends[0] - start).norm()


@pytest.mark.parametrize("name", ["adafactor", "adamw_8bit"])
def test_only_adamw_is_fused(name: str) -> None:
    with pytest.raises(ValueError, match=f"fused is a way of adamw, got name={name}"):
        OptimizerOptions(name=name, lr=1.0, fused=True)


def test_adafactor_takes_the_given_rate_as_it_is() -> None:
    """No relative step, no scaling by the parameter: the first update of a vector is lr g / rms(g) (METHODS D25)."""
    parameter = torch.nn.Parameter(torch.full((4,), 100.0))
    optimizer = build_optimizer([parameter], OptimizerOptions(name="adafactor", lr=0.25, weight_decay=0))
    parameter.grad = torch.full((4,), 3.0)
    optimizer.step()
    assert parameter.detach() == pytest.approx(torch.full((4,), 99.75))
