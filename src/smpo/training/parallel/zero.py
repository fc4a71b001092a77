"""DeepSpeed's ZeRO: gradient and optimizer state split over the processes (stage 2), weights and reference too (3).

The engine is DeepSpeed's own, around the policy. Its numbers are float32, and its forward enters the same autocast as
reference and inversion (METHODS D37). It counts forwards: one with gradient must go through it, and no other may.

Under stage 3 a network gathers its weights in its forward, as under FSDP2, and an inversion is done by a whole one.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import deepspeed
import torch
from accelerate import Accelerator
from deepspeed.runtime.zero import unwrap_model_for_generation
from deepspeed.runtime.zero.partition_parameters import GatheredParameters
from deepspeed.utils import (
    safe_get_full_optimizer_state,
    safe_get_local_grad,
    safe_get_local_optimizer_state,
    safe_set_full_optimizer_state,
    safe_set_local_optimizer_state,
)
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.integrations import unset_hf_deepspeed_config

from smpo.training.options import OptimizerOptions
from smpo.training.parallel.partition import Partition
from smpo.training.parallel.replicated import Replicated
from smpo.training.policy.lora import trained_parameters
from smpo.training.policy.optimizers import build_optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's


class Zero2(Replicated):
    """Each process keeps its part of one long vector: of the gradient, the moments and a copy of what is trained."""

    def __init__(self, accelerator: Accelerator, partition: Partition) -> None:
        super().__init__(accelerator)
        self.partition = partition
        unset_hf_deepspeed_config()  # else transformers splits whatever it loads, also what one process loads alone

    def place_policy(self, unet: UNet2DConditionModel, options: OptimizerOptions) -> None:
        """Wrap `unet` in an engine, which splits what its AdamW works on."""
        self.unet = unet.to(self.accelerator.device)
        self.optimizer = build_optimizer(trained_parameters(unet), options)
        self.policy = self._engine_of(unet, self.optimizer)

    def autocast(self) -> AbstractContextManager[None]:
        """Accelerate's is empty in its DeepSpeed mode."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.partition.bf16)

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged at once; the engine wants to know which backward is the step's last."""
        self.policy.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, which is divided by the number of micro-batches already."""
        self.policy.backward(loss, scale_wrt_gas=False)

    def clip(self, max_norm: float) -> Tensor:
        """As DDP's; the engine, which was told `max_norm`, clips in its step."""
        return torch.as_tensor(self.policy.optimizer.scaled_global_norm())

    def step(self) -> None:
        """The engine's, which forgets the gradient."""
        self.policy.step()

    def saved(
        self, unet: nn.Module, averages: Mapping[str, Mapping[str, Tensor]]
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict]]:
        """AdamW's moments of each parameter are put together, one after the other, on the main process."""
        kept, main = {}, self.accelerator.is_main_process
        steps = next(iter(self.optimizer.state.values()))["step"].cpu()
        for number, parameter in enumerate(trained_parameters(unet)):
            for moment in MOMENTS:
                full = safe_get_full_optimizer_state(parameter, moment)
                if main:
                    kept[f"{number}.{moment}"] = full.cpu()
            if main:
                kept[f"{number}.step"] = steps.clone()
        rest = {stem: self._kept(tensors) for stem, tensors in averages.items()}
        return {"unet": self.weights(unet), "optimizer": kept, **rest}, {}

    def restore_optimizer(self, tensors: Mapping[str, Tensor], scalars: dict[str, dict]) -> None:
        """This process's part of each moment."""
        for vector in self._vectors():
            steps = tensors["0.step"].to(vector.device if self.optimizer.defaults["fused"] else "cpu", copy=True)
            self.optimizer.state[vector] = {"step": steps, **{moment: torch.zeros_like(vector) for moment in MOMENTS}}
        for number, parameter in enumerate(trained_parameters(self.unet)):
            for moment in MOMENTS:
                self._set_moment(parameter, moment, tensors[f"{number}.{moment}"].to(self.accelerator.device))

    def _vectors(self) -> list[Tensor]:
        """What the optimizer has for parameters."""
        return self.policy.optimizer.single_partition_of_fp32_groups

    def _set_moment(self, parameter: nn.Parameter, moment: str, full: Tensor) -> None:
        self.policy.optimizer._lazy_init_hp_params_optimizer_state()  # as its first step does
        safe_set_full_optimizer_state(parameter, full, moment)

    def _engine_of(self, network: nn.Module, optimizer: Optimizer | None = None) -> Any:
        return deepspeed.initialize(model=network, optimizer=optimizer, config=self.partition.config)[0]


class Zero3(Zero2):
    """Each process keeps its part of every weight of policy and reference, too."""

    whole_policy = False

    def __init__(self, accelerator: Accelerator, partition: Partition) -> None:
        super().__init__(accelerator, partition)
        self.engines: list[Any] = []

    def place_reference(self, reference: UNet2DConditionModel) -> nn.Module:
        """`reference`, split in place."""
        return self._engine_of(reference.to(self.accelerator.device)).module

    @contextmanager
    def no_backward(self, other: nn.Module | None = None, *, gathered: nn.Module | None) -> Iterator[None]:
        """The network `gathered` is whole meanwhile."""
        if gathered is None:
            yield
            return
        parts = list(gathered.modules())  # a LoRA's reference is a wrapper of the policy
        engine = next(engine for engine in self.engines if any(engine.module is part for part in parts))
        with unwrap_model_for_generation(engine):
            yield

    def clip(self, max_norm: float) -> Tensor:
        """As DDP's; the engine, which was told `max_norm`, clips in its step."""
        squares = [safe_get_local_grad(one).double().square().sum() for one in trained_parameters(self.unet)]
        return self.accelerator.reduce(torch.stack(squares).sum(), reduction="sum").sqrt()

    def weights(self, unet: nn.Module) -> dict[str, Tensor]:
        """On the CPU, gathered one after the other."""
        kept = {}
        for name, parameter in unet.named_parameters():
            if parameter.requires_grad:
                with GatheredParameters([parameter]):
                    if self.accelerator.is_main_process:
                        kept[name] = parameter.detach().to("cpu", copy=True)
        return kept

    def _vectors(self) -> list[Tensor]:
        return self.policy.optimizer.fp32_partitioned_groups_flat

    def _set_moment(self, parameter: nn.Parameter, moment: str, full: Tensor) -> None:
        size = safe_get_local_optimizer_state(parameter, moment).numel()
        start, part = self.accelerator.process_index * size, full.new_zeros(size)
        mine = full.flatten()[start : start + size]
        part[: len(mine)] = mine  # the last process's part reaches beyond the end
        safe_set_local_optimizer_state(parameter, part, moment)

    def _engine_of(self, network: nn.Module, optimizer: Optimizer | None = None) -> Any:
        self.engines.append(super()._engine_of(network, optimizer))
        return self.engines[-1]
