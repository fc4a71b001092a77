"""What each of several processes holds: by hand, by the names of a UNet's parts, and counted in real processes."""

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
from smpo.cost.parallel import SPLITS, Spread
from smpo.pipeline.config import load_recipe
from smpo.training.options import TrainingOptions
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.tiny_pipelines import unet as tiny_unet
from tests.training.runs import make_run
from tests.training.test_distributed import on_processes
from tests.training.test_sharded import FSDP2
from tests.training.test_zero import splitting_all

COUNTS = Counts(10, 5, "")
LAUNCHED = {"ddp": {}, "fsdp2": FSDP2, **{f"zero{stage}": splitting_all(stage) for stage in (2, 3)}}
"""What a launcher puts into the environment, but that ZeRO-3 splits the smallest weights as well."""


def options(**changes) -> TrainingOptions:
    return TrainingOptions(**{"steps": 1, "batch_size": 2, "optimizer": {"lr": 1.0}, **changes})


def test_the_parts_of_two_tensors_by_hand() -> None:
    """15 and 4 numbers over two processes: 3 of 5 rows and 2 of 4; 8 of 15 and 2 of 4; float32."""
    tensors = [torch.zeros(5, 3), torch.zeros(4)]
    found = {split: Spread(2, split).share(tensors) for split in SPLITS}
    assert found == {"ddp": 76, "fsdp2": 4 * (9 + 2), "zero2": 4 * (8 + 2), "zero3": 4 * (8 + 2)}
    weights = {split: Spread(2, split).weights(tensors) for split in SPLITS}
    assert weights == {"ddp": 76, "fsdp2": 44, "zero2": 76, "zero3": 40}
    exchanged = {split: Spread(2, split).exchanged(tensors) for split in SPLITS}
    assert exchanged == {"ddp": 76, "fsdp2": 0, "zero2": 2 * 10**8, "zero3": 2 * 10**8}
    updates = {split: Spread(2, split).update(tensors, fused=True) for split in SPLITS}
    assert updates == {"ddp": 0, "fsdp2": 0, "zero2": 0, "zero3": 40}
    assert Spread().share(tensors) == 76 and Spread().exchanged(tensors) == 0


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
    parallel = Spread(2, "fsdp2")
    gathered = parallel.gathered(unet, options(mixed_precision=precision))
    assert gathered == size * (root + 2 * largest + root + largest) + 4 * max(root, largest)
    total = root + sum(counts.values())
    assert parallel.inverting(unet, options(mixed_precision=precision)) == size * total
    assert parallel.inverting(unet, options(mixed_precision=precision, cached_inversion_epochs=1)) == 4 * total
    assert Spread(2).gathered(unet, options()) == Spread(2, "zero2").inverting(unet, options()) == 0


def test_sd15_on_eight_gpus() -> None:
    """859,520,964 weights: an eighth of float32 copies, and the whole inverting network in bf16."""
    whole, changes = 859_520_964, ["training.micro_batch_size=1", "training.optimizer.name=adafactor"]
    recipe = load_recipe("sd15-smpo", changes)
    alone, split = (estimate(recipe, COUNTS, num_processes=n, split=how) for n, how in ((1, "ddp"), (8, "fsdp2")))
    for part in ("policy", "reference", "gradients"):
        assert getattr(split.memory, part) == pytest.approx(whole * 4 / 8, rel=1e-3)
    assert split.memory.optimizer == alone.memory.optimizer  # Adafactor's is whole everywhere
    assert split.memory.inverting == 2 * whole and split.memory.buckets == split.memory.copied == 0
    assert split.memory.kept < alone.memory.kept  # autocast has no weights to cast
    assert split.disk == alone.disk
    dpo = load_recipe("sd15-dpo", changes)
    assert estimate(dpo, COUNTS, num_processes=8, split="fsdp2").memory.inverting == 0
    text = as_text(split)
    assert "Memory of each of 8 training processes, fsdp2, GiB" in text
    assert re.search(r"inverting network, whole, in place of activations +1\.60\n", text)


def test_what_training_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match="fsdp2 splits over several processes, got one; name them by --processes"):
        Spread(1, "fsdp2")
    with pytest.raises(ConfigError, match=r"unknown way to split 'fsdp'; .*Did you mean 'fsdp2'"):
        Spread(2, "fsdp")
    for split, optimizer in (("fsdp2", "adamw_8bit"), ("zero2", "adafactor"), ("zero3", "adamw_8bit")):
        with pytest.raises(ConfigError, match=f"{split} runs refuse training.optimizer.name={optimizer}; choose adamw"):
            Spread(2, split).check(options(optimizer={"lr": 1.0, "name": optimizer}))


def test_the_peak_is_of_one_of_three_moments() -> None:
    """By hand: 40 bytes stay; 5 + 1 + 3 as it trains, 7 + 1 as it inverts, 6 as it updates."""
    lasting = {"policy": 10, "reference": 10, "average": 0, "gradients": 5, "buckets": 0, "optimizer": 10, "copied": 5}
    assert Memory(**lasting, kept=5, temporary=1, update=6, gathered=3, inverting=7).peak == 40 + 9
    assert Memory(**lasting, kept=5, temporary=1, update=6, gathered=3, inverting=9).peak == 40 + 10
    assert Memory(**lasting, kept=5, temporary=1, update=16, gathered=3, inverting=9).peak == 40 + 16


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
def test_two_real_processes_hold_what_is_told(split: str, make, whole, random_sd) -> None:
    """Against DDP, whose batches and caches are the same: to a hundredth of all weights."""
    if split.startswith("zero"):
        pytest.importorskip("deepspeed")
    architecture = architecture_of({"name": "sd", "source": str(random_sd)})
    base, memory = (training_memory(
        architecture.unet(), unet_inputs(architecture, 4, 32), make("told").options, has_reference=True,
        parallel=Spread(2, how),
    ) for how in ("ddp", split))
    real = whole if split == "ddp" else counted(make(split), split)
    in_update = memory.buckets + memory.copied if split == "zero3" else 0  # its buffer, and gradients to step by
    difference = lasting(memory) + in_update - lasting(base)
    assert real["lasting"] - whole["lasting"] == pytest.approx(difference, abs=base.policy // 100)
    assert real["inverting"] == (memory.inverting or base.policy)


def lasting(memory: Memory) -> int:
    """Bytes that tensors of Python take all the time."""
    return memory.policy + memory.reference + memory.gradients + memory.optimizer + memory.copied
