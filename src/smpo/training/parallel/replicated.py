"""The plain way to lie over processes, and the seam that the others fill: everything whole, on each of them."""

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager

from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.optim import Optimizer

from smpo.training.options import OptimizerOptions
from smpo.training.policy.lora import trained_parameters, trained_tensors
from smpo.training.policy.optimizers import build_optimizer, optimizer_tensors, restore_optimizer


class Replicated:
    """Each process keeps policy, gradient, optimizer state and reference; DDP averages the gradients of several.

    `place_policy` first, then all else. What says that it is a collective is for all processes to call together.

    Attributes:
        whole_policy: the policy, as it lies, is an ordinary UNet.
        shares_checkpoints: every process writes its rows into a checkpoint, not the main process all.
        policy: what is called with gradient; the placed UNet or a wrapper of it.
        optimizer: of the policy; its learning rate may be set at any time.
    """

    whole_policy = True
    shares_checkpoints = False
    policy: nn.Module
    optimizer: Optimizer

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def place_policy(self, unet: UNet2DConditionModel, options: OptimizerOptions) -> None:
        """Put `unet`, in place, and an optimizer of what it trains where they belong. A collective."""
        self.policy = self._placed(unet)
        self.optimizer = build_optimizer(trained_parameters(unet), options)
        self.scaled_optimizer = self.accelerator.prepare_optimizer(self.optimizer)

    def place_reference(self, reference: UNet2DConditionModel) -> nn.Module:
        """What is called as the reference. A collective."""
        return reference.to(self.accelerator.device)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision context of a pass through any network."""
        return self.accelerator.autocast()

    def no_backward(
        self, other: nn.Module | None = None, *, gathered: nn.Module | None
    ) -> AbstractContextManager[None]:
        """A stretch of forward passes that no backward follows; a collective where networks are split.

        Args:
            other: a network that makes as many passes as on every other process, one at least.
            gathered: the network that makes any number of passes.
        """
        return contextlib.nullcontext()

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch; DDP sends gradients in the step's last."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(self.policy)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, shape ()."""
        self.accelerator.backward(loss)

    def clip(self, max_norm: float) -> Tensor:
        """The norm of the averaged gradient, shape (), on some device; makes it at most `max_norm`. A collective."""
        return self.accelerator.clip_grad_norm_(self.policy.parameters(), max_norm)

    def step(self) -> None:
        """The optimizer step; the gradient is forgotten."""
        self.scaled_optimizer.step()
        self.scaled_optimizer.zero_grad()

    def weights(self, unet: nn.Module) -> dict[str, Tensor]:
        """The trained tensors of the placed policy, by name, in full; {} but on the main process. A collective."""
        return self._kept(trained_tensors(unet))

    def saved(
        self, unet: nn.Module, averages: Mapping[str, Mapping[str, Tensor]]
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict]]:
        """What this process writes into a checkpoint. A collective.

        Args:
            unet: the placed policy.
            averages: what follows it, by file stem and name, as it lies.

        Returns:
            File stem -> name -> tensor, and the optimizer's scalars.
        """
        moments, scalars = optimizer_tensors(self.optimizer)
        parts = {"unet": trained_tensors(unet), "optimizer": moments, **averages}
        return {stem: self._kept(tensors) for stem, tensors in parts.items()}, scalars

    def restore_optimizer(self, tensors: Mapping[str, Tensor], scalars: dict[str, dict]) -> None:
        """Put back the optimizer's whole tensors and its scalars, by whichever processes they were saved."""
        restore_optimizer(self.optimizer, tensors, scalars)

    def shard_like(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The full tensor of each name in `like` as that lies on this process."""
        return {name: tensors[name] for name in like}

    def _kept(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(tensors) if self.accelerator.is_main_process else {}

    def _placed(self, unet: UNet2DConditionModel) -> nn.Module:
        return self.accelerator.prepare(unet)
