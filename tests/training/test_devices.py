"""Training and caching on a stand-in for a GPU: the CPU's own bits, no tensor in the wrong place, one wait a step."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, PartialState

from smpo.data.pair_set import PairSet
from smpo.models import FAMILIES
from smpo.preparation import cache
from smpo.preparation.cache import LatentCache, cache_pairs
from smpo.preparation.options import CacheOptions
from smpo.training import trainer
from smpo.training.checkpoint import load_checkpoint
from smpo.training.run import Run
from smpo.training.trainer import Trainer, forget_precision, train
from tests.stand_in_device import DeviceMix, Remote, StandIn
from tests.training.outcomes import metrics_of
from tests.training.test_step import OBJECTIVE_SETTINGS

MakeRun = Callable[..., Run]
SHORT: dict[str, Any] = {"steps": 2, "checkpoint_every": 2}
CASES: dict[str, dict[str, Any]] = {
    "smpo renoise": {"objective": OBJECTIVE_SETTINGS["smpo"], "noising": {"name": "renoise", "inversion_steps": 2}},
    "kto": {"objective": OBJECTIVE_SETTINGS["kto"], "noising": {"name": "forward", "noise": "independent"}},
    "averages": {"objective": OBJECTIVE_SETTINGS["linear"], "ema_decay": 0.9, "reference_ema_decay": 0.9},
    "lora": {"objective": OBJECTIVE_SETTINGS["dpo"], "lora": {"rank": 2}},
}


@pytest.fixture(params=["cuda:0", "mps:0"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, which accelerate and the caching take for theirs."""
    device = StandIn(request.param)

    def join(run: Run) -> Accelerator:
        forget_precision()
        accelerator = Accelerator(cpu=True)
        PartialState._shared_state["device"] = accelerator.state.device = device.device  # the former is copied again
        return accelerator

    grouped = torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype

    def by_said_device(tensors: Any, *args: Any) -> Any:  # C++ sees where a Remote's numbers really lie
        found = grouped(tensors, *args)
        return {(device.device if isinstance(group[0][0], Remote) else place, dtype): (group, numbers)
                for (place, dtype), (group, numbers) in found.items()}

    monkeypatch.setattr(torch.nn.utils.clip_grad, "_group_tensors_by_device_and_dtype", by_said_device)
    monkeypatch.setattr(trainer, "join_processes", join)
    monkeypatch.setattr(cache, "local_device", lambda: request.param)
    yield device
    forget_precision()


@pytest.mark.parametrize(("device", "case"), [
    *(("cuda:0", case) for case in CASES), ("mps:0", "smpo renoise"),
], indirect=["device"])
def test_training_there_gives_the_same_bits_and_waits_once_a_step(
    new_run: MakeRun, device: StandIn, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    step, waits = Trainer._step, []

    def counted(self: Trainer, batches: Any) -> Any:
        before = device.waits
        metrics = step(self, batches)
        waits.append(device.waits - before)
        return metrics

    monkeypatch.setattr(Trainer, "_step", counted)
    there, here = new_run("there", **SHORT, **CASES[case]), new_run("here", **SHORT, **CASES[case])
    with device:
        train(there)
    assert waits == [1, 1] and device.seen > 1000
    monkeypatch.undo()
    forget_precision()
    train(here)
    ours, theirs = (load_checkpoint(run.checkpoints).tensors for run in (there, here))
    for stem, named in theirs.items():
        assert all(torch.equal(ours[stem][name], tensor) for name, tensor in named.items()), stem
    digits = 1e-6 if device.device.type == "mps" else 0  # sums of float32 there
    for one, other in zip(metrics_of(there), metrics_of(here), strict=True):
        assert one == pytest.approx(other, rel=digits, abs=digits)


def test_caching_there_gives_the_same_bits(
    sd_artefacts: Path, random_sd: Path, tmp_path: Path, device: StandIn
) -> None:
    pairs, family = PairSet.open(sd_artefacts / "pairs"), FAMILIES.build({"name": "sd", "source": str(random_sd)})
    with device:
        cache_pairs(pairs, family, tmp_path / "cache", options=CacheOptions(resolution=32))
    there, here = LatentCache(tmp_path / "cache"), LatentCache(sd_artefacts / "cache")
    assert device.seen > 100
    for row in range(len(here)):
        assert all(map(torch.equal, there.moments(row, 0, 0), here.moments(row, 0, 0)))
    assert torch.equal(there.prompts([0, 1])["hidden"], here.prompts([0, 1])["hidden"])


def test_the_stand_in_finds_what_it_is_for(device: StandIn) -> None:
    with device:
        x = torch.arange(3.0).to(device.device, non_blocking=True)
        assert device.waits == 0 and x.device == torch.zeros(2, device=device.device).device == device.device
        for wait in (lambda: x.max().item(), lambda: bool(x.sum() > 0), lambda: x[x > 0], lambda: x.cpu(), x.nonzero):
            before = device.waits
            wait()
            assert device.waits == before + 1
        with pytest.raises(DeviceMix):
            x + torch.ones(3)
        if device.device.type == "mps":
            with pytest.raises(TypeError, match="float64"):
                x.double()
