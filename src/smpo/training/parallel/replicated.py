"""Everything whole on every process, gradients averaged by DDP; the base class of other ways to train in parallel."""

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from smpo.training.checkpoint import POLICY
from smpo.training.options import OptimizerOptions
from smpo.training.policy.lora import trained_parameters, trained_tensors
from smpo.training.policy.optimizers import build_optimizer, optimizer_tensors, restore_optimizer


class Replicated:
    """Each process keeps policy, gradient, optimizer state and reference; DDP averages the gradients of several.

    Call `place_policy` before all other methods. All processes must call together what is marked as a collective.

    Attributes:
        whole_policy: whether the placed policy is an ordinary denoiser, with whole weights.
        shares_checkpoints: whether every process writes its rows into a checkpoint; otherwise the main process writes
            everything.
        policy: the network to call with gradient: the placed denoiser or a wrapper of it.
        optimizer: of the policy; its learning rate may be set at any time.
    """

    whole_policy = True
    shares_checkpoints = False
    policy: nn.Module
    optimizer: Optimizer

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def place_policy(self, denoiser: nn.Module, options: OptimizerOptions) -> None:
        """Put `denoiser` where it belongs, in place, and make an optimizer of its trained parameters. A collective."""
        self.policy = self._place(denoiser)
        self.optimizer = build_optimizer(trained_parameters(denoiser), options)
        self.scaled_optimizer = self.accelerator.prepare_optimizer(self.optimizer)

    def place_reference(self, reference: nn.Module) -> nn.Module:
        """The network to call as the reference: `reference` where it belongs. A collective."""
        return reference.to(self.accelerator.device)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision context of a pass through any network."""
        return self.accelerator.autocast()

    def no_backward(
        self, other: nn.Module | None = None, *, gathered: nn.Module | None
    ) -> AbstractContextManager[None]:
        """A context of forward passes that no backward follows; a collective where networks are split.

        Args:
            other: a network that makes the same number of passes on every process, at least one.
            gathered: a network that may make another number of passes on each process.
        """
        return contextlib.nullcontext()

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """The context of a micro-batch's forward and backward; DDP sends gradients in the `last` one of a step."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(self.policy)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, shape ()."""
        self.accelerator.backward(loss)

    def clip(self, max_norm: float) -> Tensor:
        """Scale the averaged gradient to a norm of at most `max_norm`. A collective.

        Returns:
            The norm before, shape (), on any device.
        """
        return self.accelerator.clip_grad_norm_(self.policy.parameters(), max_norm)

    def step(self) -> None:
        """The optimizer step; the gradient is cleared."""
        self.scaled_optimizer.step()
        self.scaled_optimizer.zero_grad()

    def weights(self, denoiser: nn.Module) -> dict[str, Tensor]:
        """The trained tensors of the placed policy, by name, in full; {} on all but the main process. A collective."""
        return self._to_save(trained_tensors(denoiser))

    def saved(
        self, denoiser: nn.Module, averages: Mapping[str, Mapping[str, Tensor]]
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, Any]]]:
        """The tensors that this process writes into a checkpoint. A collective.

        Args:
            denoiser: the placed policy.
            averages: moving averages, by file stem and name, split as the policy is.

        Returns:
            File stem -> name -> tensor, and the optimizer's scalars.
        """
        moments, scalars = optimizer_tensors(self.optimizer)
        parts = {POLICY: trained_tensors(denoiser), "optimizer": moments, **averages}
        return {stem: self._to_save(tensors) for stem, tensors in parts.items()}, scalars

    def restore_optimizer(self, tensors: Mapping[str, Tensor], scalars: dict[str, dict[str, Any]]) -> None:
        """Put back the optimizer's whole tensors and its scalars, whichever processes saved them."""
        restore_optimizer(self.optimizer, tensors, scalars)

    def shard_like(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each full tensor that has a name in `like`, the part that this process keeps, on the device of `like`."""
        return {name: tensors[name].to(model.device) for name, model in like.items()}

    def _to_save(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(tensors) if self.accelerator.is_main_process else {}

    def _place(self, network: nn.Module) -> nn.Module:
        return self.accelerator.prepare(network)
