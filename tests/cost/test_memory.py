"""Memory against bytes worked by hand, a real optimizer, a backward whose allocations are followed, and full steps."""

import copy
import json
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from smpo.cost.allocation import activation_bytes
from smpo.cost.architecture import architecture_of, unet_inputs
from smpo.cost.estimate import OVERHEAD_GIB
from smpo.cost.memory import Memory, state_bytes, training_memory
from smpo.cost.parallel import Parallel, bytes_of
from smpo.pipeline.config import load_recipe
from smpo.training.options import OptimizerOptions, TrainingOptions
from smpo.training.policy.optimizers import build_optimizer, optimizer_tensors
from smpo.training.policy.speed import speed_up
from tests.tiny_pipelines import unet as tiny_unet

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
GIB = 2**30


class Allocations(TorchDispatchMode):
    """Follows every storage that an operation makes until it dies: bytes alive now, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)):
            if storage not in self.known:
                self.known[storage] = size = storage.nbytes()
                weakref.finalize(storage, self._free, size)
                self.now += size
                self.peak = max(self.peak, self.now)
        return out

    def _free(self, size: int) -> None:
        self.now -= size


def unet_call(images: int, side: int) -> dict[str, Tensor]:
    return {
        "sample": torch.zeros(images, 4, side, side), "timestep": torch.zeros(images),
        "encoder_hidden_states": torch.zeros(images, 16, 16),
    }


@pytest.mark.parametrize(("half", "expected"), [
    (None, 4 * (6 * 4 + 6 * 8 + 6 * 8)),
    (torch.bfloat16, 2 * (6 * 4 + 6 * 8 + 6 * 8 + 8 * 2)),
])
def test_what_two_layers_keep(half: torch.dtype | None, expected: int) -> None:
    """By hand: the input of each product and of SiLU; under autocast in half, with the second layer's cast weight."""
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(4, 8, bias=False), nn.SiLU(), nn.Linear(8, 2, bias=False))
        kept, _ = activation_bytes(net, {"input": torch.empty(6, 4)}, half=half, checkpointing=False)
    assert kept == expected


@pytest.mark.parametrize("checkpointing", [False, "selective", True])
def test_the_peak_of_a_real_backward(checkpointing: bool | str) -> None:
    """Every allocation of a real forward and backward on the CPU, its gradients apart: within a quarter."""
    unet, given = tiny_unet(block_out_channels=(16, 32), layers_per_block=2), unet_call(4, 32)
    meta = {name: value.to("meta") for name, value in given.items()}
    estimated = sum(activation_bytes(copy.deepcopy(unet).to("meta"), meta, half=None, checkpointing=checkpointing))
    speed_up(unet, TrainingOptions(
        steps=1, batch_size=1, optimizer={"lr": 1.0}, gradient_checkpointing=checkpointing
    ))
    unet.train()
    for parameter in unet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with Allocations() as allocations:
        torch.autograd.backward(unet(**given).sample.square().mean())
    assert estimated == pytest.approx(allocations.peak, rel=0.25)


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "adafactor"])
def test_the_optimizers_state(name: str) -> None:
    """The tensors of a real optimizer after a step, its counters (4 bytes a weight) apart."""
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    unet = tiny_unet(block_out_channels=(8, 32))  # some tensors of 4,096 weights and more
    optimizer = build_optimizer(unet.parameters(), OptimizerOptions(name=name, lr=1e-3))
    for parameter in unet.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors, _ = optimizer_tensors(optimizer)
    real = bytes_of([tensor for key, tensor in tensors.items() if tensor.ndim])
    assert state_bytes(list(unet.parameters()), name) == real


def test_the_parts_and_the_peak() -> None:
    """By hand, 10 bytes of weights: activations and the optimizer's step are never there together."""
    parts = {"policy": 10, "reference": 10, "average": 10, "gradients": 10, "buckets": 0, "optimizer": 20}
    assert Memory(**parts, kept=5, temporary=1, update=10).peak == 60 + 10
    assert Memory(**parts, kept=15, temporary=1, update=10).peak == 60 + 16


def test_what_is_not_held_is_not_counted() -> None:
    def parts(has_reference: bool, num_processes: int, **training) -> Memory:
        options = TrainingOptions(steps=1, batch_size=2, optimizer={"lr": 1.0}, **training)
        inputs = {name: value.to("meta") for name, value in unet_call(2, 8).items()}
        unet = tiny_unet().to("meta")
        return training_memory(unet, inputs, options, has_reference=has_reference, parallel=Parallel(num_processes))

    least, most = parts(False, 1), parts(True, 2, ema_decay=0.9)
    assert (least.reference, least.average, least.buckets) == (0, 0, 0)
    assert most.reference == most.average == most.buckets == most.gradients == least.policy
    assert most.optimizer == 2 * least.policy


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "file"), [
    ("sd15-smpo", "full-size-step-sd15-64.json"), ("sdxl-smpo", "full-size-step-sdxl-32.json"),
])
def test_a_measured_step_at_full_size(recipe: str, file: str) -> None:
    """Peaks of benchmarks/full_size_step.py on a CPU, the process and its libraries (half a GiB) included."""
    measured, architecture = json.loads((RESULTS / file).read_text()), architecture_of(load_recipe(recipe).model)
    options = TrainingOptions(
        steps=1, batch_size=1, optimizer={"name": measured["optimizer"], "lr": 1.0}, gradient_checkpointing=True,
        mixed_precision="bf16" if measured["dtype"] == "bfloat16" else "no",
    )
    unet = nn.Module.to(architecture.unet(), getattr(torch, measured["dtype"]))
    memory = training_memory(unet, unet_inputs(architecture, 2, 8 * measured["latents"]), options, has_reference=True)
    assert memory.peak / GIB + OVERHEAD_GIB / 2 == pytest.approx(measured["peak_memory_gib"], rel=0.05)
