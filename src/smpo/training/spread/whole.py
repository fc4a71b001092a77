"""The plain way to lie over processes, and the seam that the others fill: everything whole, on each of them."""

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager

from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.optim import Optimizer

from smpo.training.lora import trained_parameters, trained_tensors
from smpo.training.optimizers import build_optimizer, optimizer_tensors, restore_optimizer
from smpo.training.options import OptimizerOptions


class Whole:
    """Each process keeps policy, gradient, optimizer state and reference; DDP averages the gradients of several.

    `place_policy` first, then all else. What says that it is a collective is for all processes to call together.

    Attributes:
        whole_policy: the policy, as it lies, is an ordinary UNet.
        policy: what is called with gradient; the placed UNet or a wrapper of it.
        optimizer: of the policy; its learning rate may be set at any time.
    """

    whole_policy = True
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

    def forward_only(
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

    def weights(self, unet: nn.Module, *, keep: bool) -> dict[str, Tensor]:
        """The trained tensors of the placed policy, by name, in full; {} unless `keep`. A collective."""
        return self.collect(trained_tensors(unet), keep=keep)

    def optimizer_state(self, *, keep: bool) -> tuple[dict[str, Tensor], dict[str, dict]]:
        """What `optimizer_tensors` gives, in full; no tensors unless `keep`. A collective."""
        tensors, scalars = optimizer_tensors(self.optimizer)
        return self.collect(tensors, keep=keep), scalars

    def restore_optimizer(self, tensors: dict[str, Tensor], scalars: dict[str, dict]) -> None:
        """Put back what `optimizer_state` gave on whatever processes."""
        restore_optimizer(self.optimizer, tensors, scalars)

    def collect(self, tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
        """`tensors`, made of the policy's or the reference's, in full; {} unless `keep`. A collective."""
        return dict(tensors) if keep else {}

    def lay_out(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each full tensor as its namesake in `like` lies on this process."""
        return dict(tensors)

    def _placed(self, unet: UNet2DConditionModel) -> nn.Module:
        return self.accelerator.prepare(unet)
