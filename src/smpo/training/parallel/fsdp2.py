"""FSDP2: policy, reference, gradients and optimizer state, each split over the processes of a run.

`accelerate launch --config_file launch/fsdp2.yaml` asks for it, by environment variables. The splitting is torch's
own `fully_shard`: accelerate prepares one model with its optimizer, and a run has a reference too; and it rounds every
input of the model to the parameters' precision, SDXL's picture sizes among them (in bf16 1023 px become 1024).

A sharded network gathers its weights in its forward, so every process must make equally many forward passes, or all
wait for ever. An inversion's passes depend on the timesteps drawn. Hence `FSDP2.no_backward`: the inverting network
stays whole from the first pass of its inversion to the last, and a process may make as many as it likes.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from smpo.core.errors import ConfigError
from smpo.core.processes import is_set, this_process
from smpo.training.options import TrainingOptions
from smpo.training.parallel.replicated import Replicated
from smpo.training.policy.lora import trained_parameters, trained_tensors

GATHERED_TOGETHER = (BasicTransformerBlock, ResnetBlock2D)  # each by a message of its own; what is left, with the root
OPTIMIZERS = ("adamw", "adafactor")  # those that were tried
WHOLE_MATRICES = "adafactor"  # keeps means of a matrix's rows and columns: a share of its rows is not enough
REFUSED = {  # accelerate's variables, named as in its config files but for the case -> the way out
    "FSDP_OFFLOAD_PARAMS": "",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "",  # transformers would leave the weights of all processes but one empty
    "FSDP_ACTIVATION_CHECKPOINTING": ", and training.gradient_checkpointing=true in the recipe",
}


@dataclass(frozen=True)
class Sharding:
    """How networks are split.

    Attributes:
        reshard_after_forward: free the gathered weights between forward and backward (least memory) or keep them
            (half the gathering).
        gathered_as: type in which weights are gathered; None is their own.
        whole_updates: the optimizer must see whole matrices.
    """

    reshard_after_forward: bool
    gathered_as: torch.dtype | None
    whole_updates: bool


class FSDP2(Replicated):
    """Each process keeps its rows of every tensor of policy, gradient, optimizer state and reference."""

    whole_policy, shares_checkpoints = False, True

    def __init__(self, accelerator: Accelerator, sharding: Sharding) -> None:
        super().__init__(accelerator)
        self.sharding = sharding

    def place_reference(self, reference: UNet2DConditionModel) -> nn.Module:
        """`reference`, split in place."""
        return self._placed(reference)

    @contextmanager
    def no_backward(self, other: nn.Module | None = None, *, gathered: nn.Module | None) -> Iterator[None]:
        """The network `gathered` is whole meanwhile."""
        parts = _parts(gathered) if gathered is not None else []
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(self.sharding.reshard_after_forward, recurse=False)
            for network in (gathered, other):
                if network is not None:
                    _forget_passes(network)

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged at once: kept until the last micro-batch, they would have to be kept whole."""
        return nullcontext()

    def clip(self, max_norm: float) -> Tensor:
        """As DDP's, over all shares."""
        return whole(super().clip(max_norm))

    def step(self) -> None:
        """The optimizer step; an optimizer that must see whole matrices is shown them one after the other."""
        if not self.sharding.whole_updates:
            super().step()
            return
        optimizer, groups = self.optimizer, self.optimizer.param_groups
        try:
            for group in groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        _step_whole(optimizer, group, parameter)
        finally:
            optimizer.param_groups = groups
        optimizer.zero_grad()

    def weights(self, unet: nn.Module) -> dict[str, Tensor]:
        """On the CPU; one is gathered after the other, so that a device holds one of them at a time."""
        kept = {}
        for name, tensor in trained_tensors(unet).items():
            full = whole(tensor)
            if self.accelerator.is_main_process:
                kept[name] = full.cpu()
        return kept

    def restore_optimizer(self, tensors: Mapping[str, Tensor], scalars: dict[str, dict]) -> None:
        """Each moment lies as its parameter does."""
        parameters = trained_parameters(self.policy)
        like = {name: parameters[int(name.split(".")[0])] for name in tensors}
        super().restore_optimizer(self.shard_like(tensors, like), scalars)

    def shard_like(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's rows of each tensor; one is read after the other."""
        return {name: laid_out(tensors[name], model) for name, model in like.items()}

    def _kept(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's rows; of what is not split, all on the main process."""
        return {
            name: tensor.to_local() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()
            if isinstance(tensor, DTensor) or self.accelerator.is_main_process
        }

    def _placed(self, unet: UNet2DConditionModel) -> UNet2DConditionModel:
        """`unet`, of which each process keeps its rows of every weight, on its device.

        Gradients are averaged in float32; inputs are left to autocast.
        """
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        policy = MixedPrecisionPolicy(
            param_dtype=self.sharding.gathered_as, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        reshard = self.sharding.reshard_after_forward
        parts = [part for part in unet.modules() if isinstance(part, GATHERED_TOGETHER)]
        for part in (*parts, unet):  # the root last: it takes what is left
            fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
        return unet.to(self.accelerator.device)


def sharding_asked(options: TrainingOptions, *, stored: bool = False) -> Sharding | None:
    """How the launcher asks to split, by its environment; None for one process, and where it does not ask.

    Args:
        options: of the training.
        stored: the reference's errors were taken ahead of the run, with whole weights. Its policy must then share their
            precision (METHODS D37): under autocast those of the norms stay float32, which gathering in bf16 rounds.

    Raises:
        ConfigError: it asks for what training does not do.
    """
    if not is_set("ACCELERATE_USE_FSDP") or this_process().world_size == 1:
        return None
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ConfigError(f"fsdp_version must be 2, got {version}; see launch/fsdp2.yaml")
    for variable, way_out in REFUSED.items():
        if is_set(variable):
            raise ConfigError(f"{variable.lower()} is not supported; set it to false{way_out}")
    if options.mixed_precision == "fp16":
        raise ConfigError("training.mixed_precision=fp16 is not supported by FSDP2 runs; set bf16 or no, or use DDP")
    unknown = {
        "compile=true": options.compile, "channels_last=true": options.channels_last,
        f"optimizer.name={options.optimizer.name}": options.optimizer.name not in OPTIMIZERS,
    }
    for choice in (name for name, chosen in unknown.items() if chosen):
        raise ConfigError(f"training.{choice} was never tried in FSDP2 runs, which refuse it; leave it out, or use DDP")
    if not hasattr(FSDPModule, "reset_iter_state"):
        raise ConfigError(f"FSDP2 runs need torch >= 2.13, got {torch.__version__}; upgrade it, or use DDP")
    reshard = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower()
    if reshard not in ("true", "false"):
        raise ConfigError(f"fsdp_reshard_after_forward must be true or false, got {reshard}; see launch/fsdp2.yaml")
    gathered_as = torch.bfloat16 if options.mixed_precision == "bf16" and not stored else None
    return Sharding(reshard == "true", gathered_as, options.optimizer.name == WHOLE_MATRICES)


def whole(tensor: Tensor) -> Tensor:
    """`tensor` in full. A collective where it is sharded; any other tensor is returned as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The full `tensor` as `like` lies: this process's rows of it where `like` is sharded and of the same shape."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)  # all have it: no message


@torch.no_grad()
def _step_whole(optimizer: Optimizer, group: dict, parameter: nn.Parameter) -> None:
    """One optimizer step of one sharded parameter, made whole; its state is kept whole, on every process."""
    stand_in = nn.Parameter(whole(parameter))
    stand_in.grad = whole(parameter.grad)
    if parameter in optimizer.state:
        optimizer.state[stand_in] = optimizer.state.pop(parameter)
    optimizer.param_groups = [{**group, "params": [stand_in]}]
    optimizer.step()
    optimizer.state[parameter] = optimizer.state.pop(stand_in)
    parameter.copy_(laid_out(stand_in.detach(), parameter))


def _parts(network: nn.Module) -> list[FSDPModule]:
    """What is gathered at once, the root first."""
    return [part for part in network.modules() if isinstance(part, FSDPModule)]


def _forget_passes(network: nn.Module) -> None:
    """Split all weights again, and drop the notes that FSDP2 takes of every forward pass for a backward to come.

    Left alone they grow for ever, and the next backward gathers weights ahead for passes that have none.
    """
    root, *others = _parts(network)
    for part in (root, *others):
        part.reshard()
    root.reset_iter_state()
