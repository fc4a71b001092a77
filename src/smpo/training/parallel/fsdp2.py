"""FSDP2: policy, reference, gradients and optimizer state, each split over the processes of a run.

The splitting is torch's own `fully_shard`, called directly: accelerate prepares one model with its optimizer, and a run
has a reference too. Besides, accelerate casts every input of the model to the parameters' precision, SDXL's image sizes
among them (bf16 turns 1023 px into 1024).

A sharded network gathers its weights in its forward, so every process must make the same number of forward passes;
otherwise they wait for each other for ever. How many passes an inversion makes depends on the sampled timesteps. Hence
`FSDP2.no_backward`: the inverting network is gathered once, before the first pass of its inversion, and split again
after the last one, and a process may make any number of passes in between.

With `cpu_offload` a process keeps its rows in host memory, with their gradients and optimizer state. torch copies the
rows of a block to the device to gather it, and the gradient of a block back. The optimizer steps on the CPU. Everything
here therefore follows the device of the parameter at hand, not that of the process.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from smpo.training.parallel.replicated import Replicated
from smpo.training.policy.lora import trained_parameters, trained_tensors


@dataclass(frozen=True)
class FSDP2Options:
    """How networks are split.

    Attributes:
        reshard_after_forward: free the gathered weights between forward and backward (least memory), or keep them
            (half the gathering).
        param_dtype: the type in which weights are gathered; None is their own.
        step_whole_matrices: the optimizer must see whole matrices.
        cpu_offload: keep what is split in host memory.
    """

    reshard_after_forward: bool = True
    param_dtype: torch.dtype | None = None
    step_whole_matrices: bool = False
    cpu_offload: bool = False


class FSDP2(Replicated):
    """Each process keeps its rows of every tensor of policy, gradient, optimizer state and reference."""

    whole_policy, shares_checkpoints = False, True

    def __init__(self, accelerator: Accelerator, options: FSDP2Options) -> None:
        super().__init__(accelerator)
        self.options = options
        if not dist.is_initialized():  # accelerate leaves a single process without a group
            backend = "gloo" if accelerator.device.type == "cpu" else f"cpu:gloo,{accelerator.device.type}:nccl"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)

    def place_reference(self, reference: nn.Module) -> nn.Module:
        """`reference`, split in place."""
        return self._place(reference)

    @contextmanager
    def no_backward(self, other: nn.Module | None = None, *, gathered: nn.Module | None) -> Iterator[None]:
        """Within it, the network `gathered` is whole on every process."""
        modules = _fsdp_modules(gathered) if gathered is not None else []
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in modules:
                module.set_reshard_after_forward(self.options.reshard_after_forward, recurse=False)
            for network in (gathered, other):
                if network is not None:
                    _reset(network)

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged after every micro-batch: waiting for the last one would keep them whole."""
        return nullcontext()

    def clip(self, max_norm: float) -> Tensor:
        """The norm of the averaged gradient over all processes; see `Replicated.clip`."""
        return full_tensor(super().clip(max_norm))

    def step(self) -> None:
        """The optimizer step. An optimizer that needs whole matrices gets them one after the other."""
        if not self.options.step_whole_matrices:
            super().step()
            return
        optimizer, groups = self.optimizer, self.optimizer.param_groups
        try:
            for group in groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        _step_whole_matrix(optimizer, group, parameter)
        finally:
            optimizer.param_groups = groups
        optimizer.zero_grad()

    def weights(self, denoiser: nn.Module) -> dict[str, Tensor]:
        """On the CPU; gathered one after the other, so that a device holds one of them at a time."""
        weights = {}
        for name, tensor in trained_tensors(denoiser).items():
            full = full_tensor(tensor)
            if self.accelerator.is_main_process:
                weights[name] = full.cpu()
        return weights

    def restore_optimizer(self, tensors: Mapping[str, Tensor], scalars: dict[str, dict[str, Any]]) -> None:
        """Each moment is split as its parameter is."""
        parameters = trained_parameters(self.policy)
        like = {name: parameters[int(name.split(".")[0])] for name in tensors}
        super().restore_optimizer(self.shard_like(tensors, like), scalars)

    def shard_like(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's rows of each tensor; one is read after the other."""
        return {name: shard_tensor_like(tensors[name], model) for name, model in like.items()}

    def _to_save(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's rows; the main process also saves what is not split."""
        return {
            name: tensor.to_local() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()
            if isinstance(tensor, DTensor) or self.accelerator.is_main_process
        }

    def _place(self, network: nn.Module) -> nn.Module:
        """`network`, of which each process keeps its rows of every weight.

        Gradients are averaged in float32; inputs are left to autocast.
        """
        device, options = self.accelerator.device.type, self.options
        mesh = init_device_mesh(device, (self.accelerator.num_processes,))
        precision = MixedPrecisionPolicy(
            param_dtype=options.param_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        offload = CPUOffloadPolicy(pin_memory=device != "cpu") if options.cpu_offload else OffloadPolicy()
        for module in (*blocks_of(network), network):  # the root last: it takes what is left
            fully_shard(
                module, mesh=mesh, mp_policy=precision, reshard_after_forward=options.reshard_after_forward,
                offload_policy=offload,
            )
        return network


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The modules that are gathered by a message of their own; all other weights are gathered with the root.

    They are the innermost of those that diffusers says not to split over devices: of a UNet its transformer and ResNet
    blocks (its up blocks, which are named too, contain these), of a transformer its repeated blocks.
    """
    named = set(getattr(network, "_no_split_modules", None) or getattr(network, "_repeated_blocks", None) or ())
    found = [module for module in network.modules() if type(module).__name__ in named and module is not network]
    return [block for block in found if not any(other in found for other in block.modules() if other is not block)]


def full_tensor(tensor: Tensor) -> Tensor:
    """`tensor` in full. A collective where it is sharded; any other tensor is returned as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_tensor_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's rows of the full `tensor`, where `like` is sharded and of the same shape; on the device of `like`.

    Any other tensor is returned as it is.
    """
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    # every process has the full tensor: nothing is sent. The rows come out on the mesh's device
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to(like.device)


@torch.no_grad()
def _step_whole_matrix(optimizer: Optimizer, group: dict[str, Any], parameter: nn.Parameter) -> None:
    """One optimizer step of one gathered parameter; its optimizer state is kept whole, on every process."""
    whole = nn.Parameter(full_tensor(parameter))
    assert parameter.grad is not None
    whole.grad = full_tensor(parameter.grad)
    if parameter in optimizer.state:
        optimizer.state[whole] = optimizer.state.pop(parameter)
    optimizer.param_groups = [{**group, "params": [whole]}]
    optimizer.step()
    optimizer.state[parameter] = optimizer.state.pop(whole)
    parameter.copy_(shard_tensor_like(whole.detach(), parameter))


def _fsdp_modules(network: nn.Module) -> list[FSDPModule]:
    """The modules that are gathered each by itself, the root first."""
    return [module for module in network.modules() if isinstance(module, FSDPModule)]


def _reset(network: nn.Module) -> None:
    """Split all weights again, and drop what FSDP2 records of every forward pass for a backward to come.

    Without this the records grow for ever, and the next backward gathers weights ahead for passes that have none.
    """
    root, *others = _fsdp_modules(network)
    for module in (root, *others):
        module.reshard()
    root.reset_iter_state()
