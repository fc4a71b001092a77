"""The memory of each of several processes: by hand, by the names of a UNet's parts, and counted in real processes."""

import gc
import json
import os
import re
from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from smpo.cli.costing import as_text
from smpo.core.errors import ConfigError
from smpo.cost.architecture import architecture_of, unet_inputs
from smpo.cost.estimate import Counts, estimate
from smpo.cost.memory import Memory, training_memory
from smpo.cost.parallel import SPLITS, Parallel
from smpo.pipeline.config import load_recipe
from smpo.training.options import TrainingOptions
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.tiny_pipelines import unet as tiny_unet
from tests.training.parallel.processes import on_processes
from tests.training.parallel.test_fsdp2 import FSDP2_ENV, OFFLOAD
from tests.training.runs import make_run

COUNTS = Counts(10, 5, "")
LAUNCHED = {"ddp": {}, "fsdp2": FSDP2_ENV, "fsdp2-offload": {**FSDP2_ENV, **OFFLOAD}}
"""The variables that a launcher sets."""


def options(**changes) -> TrainingOptions:
    return TrainingOptions(**{"steps": 1, "batch_size": 2, "optimizer": {"lr": 1.0}, **changes})


def test_the_parts_of_two_tensors_by_hand() -> None:
    """15 and 4 numbers over two processes: 3 of 5 rows and 2 of 4; float32."""
    tensors = [torch.zeros(5, 3), torch.zeros(4)]
    assert {split: Parallel(2, split).share(tensors) for split in SPLITS} == {
        "ddp": 76, "fsdp2": 44, "fsdp2-offload": 44
    }
    assert [Parallel(2, split).exchanged(tensors) for split in SPLITS] == [76, 0, 0]
    assert Parallel().share(tensors) == 76 and Parallel().exchanged(tensors) == 0
    assert Parallel(1, "fsdp2-offload").share(tensors) == 76


@pytest.mark.parametrize(("precision", "size"), [("no", 4), ("bf16", 2)])
def test_what_fsdp2_gathers_at_a_time(precision: str, size: int) -> None:
    """Units by their names; SD1.5's layout at toy size has its largest in a residual block."""
    unet, counts = tiny_unet(), {}
    for name, parameter in unet.named_parameters():
        parts = name.split(".")
        cut = next((i for i, part in enumerate(parts) if part in ("resnets", "transformer_blocks")), None)
        unit = "root" if cut is None else ".".join(parts[: cut + 2])
        counts[unit] = counts.get(unit, 0) + parameter.numel()
    root, largest = counts.pop("root"), max(counts.values())
    parallel = Parallel(2, "fsdp2")
    gathered = parallel.gathered(unet, options(mixed_precision=precision))
    assert gathered == size * (root + 2 * largest + root + largest) + 4 * max(root, largest)
    total = root + sum(counts.values())
    assert parallel.inverting(unet, options(mixed_precision=precision)) == size * total
    assert parallel.inverting(unet, options(mixed_precision=precision, cached_inversion_epochs=1)) == 4 * total
    assert Parallel(2).gathered(unet, options()) == Parallel(2).inverting(unet, options()) == 0
    offloading = Parallel(1, "fsdp2-offload").gathered(unet, options(mixed_precision=precision))
    assert offloading == gathered + 4 * max(root, largest)


def test_sd15_on_eight_gpus() -> None:
    """859,520,964 weights: an eighth of float32 copies, and the whole inverting network in bf16."""
    whole, changes = 859_520_964, ["training.micro_batch_size=1", "training.optimizer.name=adafactor"]
    recipe = load_recipe("sd15-smpo", changes)
    alone, split = (estimate(recipe, COUNTS, num_processes=n, split=how) for n, how in ((1, "ddp"), (8, "fsdp2")))
    for part in ("policy", "reference", "gradients"):
        assert getattr(split.memory, part) == pytest.approx(whole * 4 / 8, rel=1e-3)
    assert split.memory.optimizer == alone.memory.optimizer  # Adafactor's is whole everywhere
    assert split.memory.inverting == 2 * whole and split.memory.buckets == split.memory.host == 0
    assert split.memory.kept < alone.memory.kept  # autocast has no weights to cast
    assert split.disk == alone.disk
    dpo = load_recipe("sd15-dpo", changes)
    assert estimate(dpo, COUNTS, num_processes=8, split="fsdp2").memory.inverting == 0
    text = as_text(split)
    assert "Memory of each of 8 training processes, fsdp2, GiB" in text
    assert re.search(r"inverting network, whole, in place of activations +1\.60\n", text)


def test_offloading_moves_what_lasts_into_host_memory() -> None:
    """One GPU, SD1.5: 859,520,964 weights of policy, reference, gradients and two moments, float32."""
    recipe = load_recipe("sd15-smpo", ["training.micro_batch_size=1", "training.optimizer.name=adamw"])
    alone, split = (estimate(recipe, COUNTS, split=how).memory for how in ("ddp", "fsdp2-offload"))
    assert split.host == 5 * 4 * 859_520_964 + split.update and split.update < alone.update / 10
    assert split.peak == max(split.kept + split.temporary + split.gathered, split.inverting + split.temporary)
    assert split.peak < alone.peak - split.host + split.inverting + split.gathered
    text = as_text(estimate(recipe, COUNTS, split="fsdp2-offload"))
    assert re.search(r"optimizer state \(host memory\) +6\.40\n", text) and "peak in host memory" in text


def test_what_training_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match="over several processes, got one; set --processes, or use fsdp2-offload"):
        Parallel(1, "fsdp2")
    with pytest.raises(ConfigError, match="zero3 is not supported any more; use fsdp2, or fsdp2-offload"):
        Parallel(2, "zero3")
    with pytest.raises(ConfigError, match=r"unknown way to split 'fsdp'; .*Did you mean 'fsdp2'"):
        Parallel(2, "fsdp")
    for split in ("fsdp2", "fsdp2-offload"):
        with pytest.raises(ConfigError, match=f"{split} runs refuse training.optimizer.name=adamw_8bit; choose adamw"):
            Parallel(2, split).check(options(optimizer={"lr": 1.0, "name": "adamw_8bit"}))


def test_the_peak_is_of_one_of_three_moments() -> None:
    """By hand: 40 bytes stay; 5 + 1 + 3 as it trains, 7 + 1 as it inverts, 6 as it updates."""
    lasting = {"policy": 10, "reference": 10, "average": 5, "gradients": 5, "buckets": 0, "optimizer": 10}
    assert Memory(**lasting, kept=5, temporary=1, update=6, gathered=3, inverting=7).peak == 40 + 9
    assert Memory(**lasting, kept=5, temporary=1, update=6, gathered=3, inverting=9).peak == 40 + 10
    assert Memory(**lasting, kept=5, temporary=1, update=16, gathered=3, inverting=9).peak == 40 + 16
    offloaded = Memory(**lasting, kept=5, temporary=1, update=16, gathered=3, inverting=7, offloaded=True)
    assert (offloaded.peak, offloaded.host) == (9, 40 + 16)


def alive() -> int:
    """Bytes of all tensors of this process, each storage once."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if issubclass(type(one), Tensor) and not isinstance(one, DTensor)]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def counted(run: Run, split: str) -> dict[str, int]:
    """Bytes alive in the first of two processes before its last update, and of the network that inverted."""
    file = run.folder.with_suffix(".json")

    def work() -> None:
        os.environ.update(LAUNCHED[split])
        found: dict[str, int] = {}

        def before_forward(module: torch.nn.Module, given: object) -> None:
            whole = [p for p in module.parameters() if not isinstance(p, DTensor) and p.numel()]
            if isinstance(module, UNet2DConditionModel) and not torch.is_grad_enabled() and whole:
                found["inverting"] = sum(p.nbytes for p in whole)

        torch.nn.modules.module.register_module_forward_pre_hook(before_forward)
        register_optimizer_step_pre_hook(lambda *_: found.update(lasting=alive()))
        train(run)
        if os.environ["RANK"] == "0":
            file.write_text(json.dumps(found))

    assert on_processes(work) == [0, 0]
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def make(artefacts, random_sd, tmp_path_factory) -> Callable[[str], Run]:
    """A run of two steps, in a folder of its name."""
    root, noising = tmp_path_factory.mktemp("runs"), {"name": "renoise", "inversion_steps": 3, "grid": "subdivide"}
    return lambda name: make_run(
        artefacts, root / name, random_sd, noising=noising, steps=2, checkpoint_every=9
    )


@pytest.fixture(scope="module")
def whole(make) -> dict[str, int]:
    """What is counted under DDP."""
    return counted(make("ddp"), "ddp")


@pytest.mark.slow
@pytest.mark.parametrize("split", LAUNCHED)
def test_two_real_processes_hold_the_estimated_bytes(split: str, make, whole, random_sd) -> None:
    """Against DDP, whose batches and caches are the same: to a hundredth of all weights."""
    architecture = architecture_of({"name": "sd", "source": str(random_sd)})
    base, memory = (training_memory(
        architecture.unet(), unet_inputs(architecture, 4, 32), make("told").options, has_reference=True,
        parallel=Parallel(2, how),
    ) for how in ("ddp", split))
    real = whole if split == "ddp" else counted(make(split), split)
    difference = lasting(memory) - lasting(base)
    assert real["lasting"] - whole["lasting"] == pytest.approx(difference, abs=base.policy // 100)
    assert real["inverting"] == (memory.inverting or base.policy)


def lasting(memory: Memory) -> int:
    """Bytes that tensors of Python take all the time."""
    return memory.policy + memory.reference + memory.gradients + memory.optimizer
