"""A step never waits for its device: run on the meta device, which has no number to wait for, in place of a GPU.

What lives on the meta device has no content, so that `.item()`, `bool()`, `nonzero()`, masks as indices and copies back
raise. What a GPU would do in silence, but waiting, `NoWaiting` finds: an index on the CPU, a blocking copy.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data._utils.pin_memory import pin_memory

from smpo.core.records import CachedInversion, TrainingBatch
from smpo.core.transfer import send
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES
from smpo.training.learners.learner import Networks
from smpo.training.metrics import MeanTable
from smpo.training.options import LoraOptions
from smpo.training.policy.lora import AdaptersOff, add_adapters
from smpo.training.preference_run import PreferenceRun as Run
from tests.training.runs import make_run
from tests.training.steps import Setup, batch_of
from tests.training.test_step import OBJECTIVE_SETTINGS

MakeRun = Callable[..., Run]
META = torch.device("meta")
NOISINGS_HERE = {
    "forward": {"name": "forward"}, "independent": {"name": "forward", "noise": "independent"},
    "subdivide": {"name": "renoise", "inversion_steps": 2, "grid": "subdivide"},
    "fixed stride": {"name": "renoise", "inversion_steps": 2, "grid": "fixed_stride"},
    "by the reference": {"name": "renoise", "inversion_steps": 2, "network": "reference"},
    "guided": {"name": "ddim", "inversion_steps": 2, "inversion_cfg": 2.0},
    "unconditional": {"name": "ddim", "inversion_steps": 2, "inversion_cfg": 0.0},
    "heun": {"name": "heun", "inversion_steps": 2, "labels": "target"},
    "midpoint": {"name": "midpoint", "inversion_steps": 2},
    "every step": {"name": "renoise_every", "inversion_steps": 2, "rounds": 2, "averaged": 2},
    "chained": {"name": "chained", "chain_length": 2}, "released": {"name": "released", "inversion_steps": 2},
    "reached": {"name": "released", "inversion_steps": 2, "timestep": "reached", "jitter": 0.1, "predictions": 1},
}


class NoWaiting(TorchDispatchMode):
    """Fails where tensors of both devices meet, and where a copy from one to the other is not `non_blocking`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        here, there = ({t.device for t in tensors} for tensors in (given, made))
        if func is torch.ops.aten._to_copy.default and here != there:
            assert kwargs.get("non_blocking"), "a copy to the device that the host waits for"
        else:
            # a number without axes travels with the kernel's launch: from the CPU to the device nothing is copied
            devices = {t.device for t in [*given, *made] if t.ndim}
            assert len(devices) < 2, f"{func} takes tensors of both devices"
        self.seen += META in there
        return out


def on_meta(run: Run, *, lora: bool = False, checkpointing: bool = False) -> Setup:
    """The learner of `run`, networks on the meta device."""
    policy = run.family.load_denoiser()
    if checkpointing:
        policy.enable_gradient_checkpointing()
    if lora:
        add_adapters(policy, LoraOptions(), seed=0)
    policy = policy.to(META)
    reference = AdaptersOff(policy) if lora else run.family.load_denoiser().to(META).requires_grad_(False).eval()
    return Setup(run.learner, Networks(policy, policy, reference, nullcontext))


def batch_for(run: Run) -> TrainingBatch:
    """The loader's batch of four examples, which are two chains as well."""
    return replace(batch_of(run, range(4)), timesteps=torch.tensor([40, 290, 540, 790]))


def with_store(batch: TrainingBatch) -> TrainingBatch:
    """The same with latents that were noised before training."""
    return replace(batch, cached=CachedInversion(batch.x_0 + 1.0, batch.timesteps + 1, torch.ones(batch.x_0.shape[:2])))


def step_on_meta(run: Run, batch: TrainingBatch | None = None, **changes: bool) -> int:
    """A whole micro-batch, from the loader's batch to the sums of the log; returns how much was "computed" there."""
    setup, batch = on_meta(run, **changes), batch or batch_for(run)
    learner, networks, table = setup.learner, setup.networks, MeanTable()
    with NoWaiting() as mode:
        prepared = learner.prepare(batch.to(META), networks)
        ahead = learner.pooled(prepared, networks) if learner.needs_pool else None
        output = learner.loss(prepared, networks, lambda values: torch.cat([ahead, values]))
        output.loss.mean().backward()
        table.add(output.sums)
        sums = table.sums
    assert sums.is_meta and output.loss.is_meta and output.loss.shape == (4,)
    assert all(parameter.grad.is_meta for parameter in networks.policy.parameters() if parameter.requires_grad)
    return mode.seen


@pytest.mark.parametrize(("objective", "noising"), [
    *(("smpo", noising) for noising in NOISINGS_HERE), *((objective, "forward") for objective in OBJECTIVE_SETTINGS),
    ("sft", "fixed stride"),
])
def test_a_step_does_not_wait_for_its_device(new_run: MakeRun, objective: str, noising: str) -> None:
    run = new_run("run", objective=OBJECTIVE_SETTINGS[objective], noising=NOISINGS_HERE[noising])
    assert step_on_meta(run) > 100


def test_every_noising_and_objective_is_among_them() -> None:
    assert {settings["name"] for settings in NOISINGS_HERE.values()} == set(NOISINGS)
    assert {settings["name"] for settings in OBJECTIVE_SETTINGS.values()} == set(OBJECTIVES)


@pytest.mark.parametrize("changes", [{"lora": True}, {"checkpointing": True}], ids=str)
def test_nor_with_adapters_or_checkpointing(new_run: MakeRun, changes: dict[str, bool]) -> None:
    assert step_on_meta(new_run("run", noising=NOISINGS_HERE["fixed stride"]), **changes) > 100


def test_nor_with_stored_visits(new_run: MakeRun) -> None:
    run = new_run("run")
    assert step_on_meta(run, with_store(batch_for(run))) > 100


def test_nor_with_sdxl(sdxl_artefacts: Path, random_sdxl: Path, tmp_path: Path) -> None:
    noising = NOISINGS_HERE["fixed stride"]
    assert step_on_meta(make_run(sdxl_artefacts, tmp_path, random_sdxl, family="sdxl", noising=noising)) > 100


@pytest.mark.parametrize("waits", [
    lambda x: x.max().item(), lambda x: bool(x.min() > 0), lambda x: x[x > 0], lambda x: x.nonzero(),
    lambda x: x[torch.tensor([0, 1])], lambda x: x * torch.ones(3), lambda x: torch.ones(3).to(META), lambda x: x.cpu(),
    lambda x: torch.ones(3).to(META, non_blocking=True).tolist(),
])
def test_the_check_itself_finds_what_waits(waits: Callable[[Tensor], Any]) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), NoWaiting():
        waits(torch.empty(3, device=META))


def test_the_check_itself_lets_pass_what_does_not_wait() -> None:
    with NoWaiting():
        x = torch.empty(3, device=META)
        (torch.where(x > 0.5, 1.0, -1.0) * x)[send(torch.tensor([0, 2]), META)] += torch.tensor(2.0)


def tensors_of(record: Any) -> dict[str, Tensor]:
    """Every tensor of a record and of the records in it, by its place."""
    found = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor):
            found[field.name] = value
        elif is_dataclass(value):
            found |= {f"{field.name}.{name}": tensor for name, tensor in tensors_of(value).items()}
        elif isinstance(value, dict):
            found |= {f"{field.name}.{name}": tensor for name, tensor in value.items()}
    return found


def test_what_is_sent_is_pinned_and_the_rest_stays(new_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the data loader's own function; no memory can be pinned without a GPU, so what would be is told by a sign."""
    batch = with_store(batch_for(new_run("run")))
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor + 0.0 if tensor.is_floating_point() else tensor)
    before, pinned, sent = (tensors_of(one) for one in (batch, pin_memory(batch), batch.to(META)))
    assert isinstance(pin_memory(batch), TrainingBatch)
    staying = {"timesteps", "seeds", "cached.timesteps"}
    assert {name for name in before if pinned[name] is before[name]} == staying
    assert {name for name in before if not sent[name].is_meta} == staying
    assert all(torch.equal(pinned[name], before[name]) for name in before)
    assert batch.to(torch.device("cpu")).x_0 is batch.x_0
