"""What makes steps faster changes nothing else: the trajectory, the names of the parameters, what may be resumed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from smpo.core.artefacts import read_manifest
from smpo.training.checkpoint import load_checkpoint
from smpo.training.options import TrainingOptions
from smpo.training.policy import speed
from smpo.training.policy.speed import speed_up
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.tiny_pipelines import unet as tiny_unet
from tests.training.test_trajectories import GENTLE, assert_same_trajectory

MakeRun = Callable[..., Run]
MOVING = {**GENTLE, "noising": {"name": "renoise", "inversion_steps": 5, "grid": "fixed_stride"}, "steps": 4}
COMPILED = {
    "plain": {}, "checkpointed": {"gradient_checkpointing": True},
    "selectively checkpointed": {"gradient_checkpointing": "selective"},
    "LoRA": {"lora": {"rank": 2}, "optimizer": {"lr": 1e-2, "eps": 1e-2}, "gradient_checkpointing": True},
    "channels last": {"channels_last": True},
}


def options(**changes: Any) -> TrainingOptions:
    return TrainingOptions(steps=1, batch_size=1, optimizer={"lr": 1.0}, **changes)


def trained(run: Run) -> Run:
    train(run)
    return run


# --- the trajectory ---

@pytest.mark.parametrize("changes", [
    {"gradient_checkpointing": "selective"}, {"channels_last": True},
    {"optimizer": {**GENTLE["optimizer"], "fused": True}},
    {"gradient_checkpointing": "selective", "channels_last": True, "lora": {"rank": 2}},
], ids=str)
def test_the_trajectory_is_that_without(new_run: MakeRun, changes: dict[str, Any]) -> None:
    settings = {**GENTLE, "lora": changes.get("lora")}
    plain, fast = new_run("plain", **settings), new_run("fast", **{**settings, **changes})
    assert_same_trajectory(trained(fast), trained(plain))


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every graph that PyTorch compiles; the graphs are run as they are."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        graphs.append(len(inputs))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setitem(speed.COMPILING, "backend", backend)
    return graphs


@pytest.mark.slow
@pytest.mark.parametrize("case", COMPILED)
def test_a_compiled_run_compiles_in_its_first_step_only(
    new_run: MakeRun, compilations: list[int], case: str
) -> None:
    """Its inversions move other rows in every step; the policy is asked in two modes, with and without adapters."""
    after: list[int] = []
    plain, compiled = (new_run(f"run-{on}", **{**MOVING, **COMPILED[case], "compile": on}) for on in (False, True))
    train(compiled, report=lambda _: after.append(len(compilations)))
    assert after[0] >= 2 * 2 and after[1:] == after[:1] * 3  # two widths of blocks, two modes
    assert not torch._dynamo.utils.counters["graph_break"]
    assert_same_trajectory(compiled, trained(plain))


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, "selective"])
def test_compiled_code_computes_what_eager_code_does(checkpointing: bool | str) -> None:
    """PyTorch's own compiler, whose kernels sum in another order: 1e-5 of the output and its gradients."""
    torch._dynamo.reset()
    eager, compiled = tiny_unet(), tiny_unet()
    compiled.load_state_dict(eager.state_dict())
    speed_up(compiled, options(compile=True, gradient_checkpointing=checkpointing))
    for rows in (4, 6):
        results = [forward_and_backward(network.train(), call(rows)) for network in (eager, compiled)]
        torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-4)


def call(rows: int) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(rows)
    x, hidden = (torch.randn(rows, *shape, generator=draw) for shape in ((4, 8, 8), (16, 16)))
    return x, torch.randint(0, 1000, (rows,), generator=draw), hidden


def forward_and_backward(network: nn.Module, given: tuple[Tensor, ...]) -> list[Tensor]:
    network.zero_grad()
    output = network(*given).sample
    output.square().mean().backward()
    return [output.detach(), *(parameter.grad for parameter in network.parameters())]


# --- what it is made of ---

def test_names_of_parameters_stay() -> None:
    plain, fast = tiny_unet(), tiny_unet()
    speed_up(fast, options(compile=True, channels_last=True, gradient_checkpointing="selective"))
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert fast.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert not fast.conv_in.weight.is_contiguous()
    blocks = [module for module in fast.modules() if type(module).__name__ == "BasicTransformerBlock"]
    assert len(blocks) == 4 and all(block._compiled_call_impl is not None for block in blocks)


@pytest.mark.parametrize("half", [False, True])
def test_selective_checkpointing_makes_no_product_again(half: bool) -> None:
    """The FLOPs of products, convolutions and attention are those without, and every bit of the gradients is, too."""
    seen = {}
    for how in (False, "selective", True):
        torch.manual_seed(0)
        network = tiny_unet().train()
        speed_up(network, options(gradient_checkpointing=how))
        with FlopCounterMode(display=False) as flops, torch.autocast("cpu", torch.bfloat16, enabled=half):
            seen[how] = forward_and_backward(network, call(3)), flops.get_total_flops()
    assert seen["selective"][1] == seen[False][1] < seen[True][1]
    assert all(torch.equal(a, b) for a, b in zip(seen["selective"][0], seen[False][0], strict=True))


class Attending(TorchFunctionMode):
    """Counts fused attention, and soft-maxima written out."""

    def __init__(self) -> None:
        self.fused = self.written_out = 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.fused += func is F.scaled_dot_product_attention
        self.written_out += func in (F.softmax, torch.softmax, Tensor.softmax, torch.baddbmm)
        return func(*args, **(kwargs or {}))


def test_attention_is_fused(new_run: MakeRun) -> None:
    """In the UNet as the trainer loads it: two attentions in each of its four transformer blocks."""
    network = new_run("run").family.load_denoiser()
    processors = [module.processor for module in network.modules() if isinstance(module, Attention)]
    assert len(processors) == 8 and all(type(processor) is AttnProcessor2_0 for processor in processors)
    with Attending() as attending:
        network(*call(2))
    assert (attending.fused, attending.written_out) == (8, 0)


# --- files ---

def test_a_run_without_these_options_has_the_manifest_it_had(new_run: MakeRun) -> None:
    """Chosen, they are part of it: they change the last bits."""
    plain, fast = trained(new_run("plain", steps=1)), trained(new_run(
        "fast", steps=1, channels_last=True, optimizer={"lr": 1e-3, "fused": True}
    ))
    settings = [read_manifest(run.folder, stage="train")["settings"]["training"] for run in (plain, fast)]
    assert not {"compile", "channels_last"} & settings[0].keys() and "fused" not in settings[0]["optimizer"]
    assert settings[1]["channels_last"] and settings[1]["optimizer"]["fused"] and "compile" not in settings[1]


def test_a_run_resumes_in_the_layout_it_had(new_run: MakeRun) -> None:
    """Killed in its third of four steps and carried on, a fused channels-last run ends with the straight one's bits."""
    changes = {"channels_last": True, "optimizer": {"lr": 1e-3, "fused": True}, "steps": 4}
    straight, cut = trained(new_run("straight", **changes)), new_run("cut", **changes)

    def stop(metrics: dict[str, Any]) -> None:
        if metrics["step"] == 3:  # the checkpoint of step 2 is written, that of step 3 is not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, report=stop)
    assert trained(cut) and load_checkpoint(cut.checkpoints).step == 4
    ours, theirs = (load_checkpoint(run.checkpoints).tensors for run in (cut, straight))
    for part in ("policy", "optimizer"):
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in theirs[part])
