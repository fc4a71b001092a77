"""LoRA (Hu et al. 2021): trained adapters on the denoiser, which without them is the frozen reference.

One copy of the weights serves policy and reference: the policy is the base with adapters, the reference the base alone.
The adapters are peft's; what follows holds for any denoiser, and for one without adapters every parameter is trained.
"""

from typing import Any

import torch
from diffusers import ModelMixin
from peft import LoraConfig
from torch import Tensor, nn

from smpo.core.checks import check_known
from smpo.training.options import LoraOptions

ADAPTER = "smpo"
INITS = {"kaiming": True, "gaussian": "gaussian"}  # peft's names; B is zero in both: the policy starts as the reference


class AdaptersOff(nn.Module):
    """The denoiser without its adapters, in eval mode: the reference that needs no second copy of the weights.

    Called like the denoiser, it answers bit for bit what that did before it had adapters, and leaves it as it was.
    """

    def __init__(self, denoiser: ModelMixin) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The bare denoiser's answer."""
        training = self.denoiser.training
        self.denoiser.eval()
        self.denoiser.disable_adapters()
        try:
            return self.denoiser(*args, **kwargs)
        finally:
            self.denoiser.enable_adapters()
            self.denoiser.train(training)


def add_adapters(denoiser: ModelMixin, options: LoraOptions, *, seed: int) -> None:
    """Freeze `denoiser` and give its target modules trainable adapters, drawn from `seed`.

    Raises:
        ConfigError: a target is the name of no linear or convolutional module.
    """
    _check_targets(denoiser, options.targets)
    config = LoraConfig(
        r=options.rank, lora_alpha=options.scaled_by, lora_dropout=options.dropout, use_dora=options.dora,
        target_modules=list(options.targets), init_lora_weights=INITS[options.init],
    )
    with torch.random.fork_rng(devices=[]):  # on the CPU, whichever device is to come
        torch.manual_seed(seed)
        denoiser.add_adapter(config, ADAPTER)


def trained_parameters(denoiser: nn.Module) -> list[nn.Parameter]:
    """The parameters that get gradients, in the denoiser's order."""
    return [parameter for parameter in denoiser.parameters() if parameter.requires_grad]


def trained_tensors(denoiser: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor of what is trained: the state that a checkpoint needs beside the base's weights."""
    return {name: parameter.detach() for name, parameter in denoiser.named_parameters() if parameter.requires_grad}


def restore_trained(denoiser: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `trained_tensors` gave."""
    assert tensors.keys() == trained_tensors(denoiser).keys(), "a checkpoint of other modules"
    denoiser.load_state_dict(tensors, strict=False)  # not strict: the frozen base is where it was


def fuse(denoiser: ModelMixin) -> None:
    """Add the adapters into the weights of `denoiser` and take them off: an ordinary one remains."""
    denoiser.fuse_lora(safe_fusing=True, adapter_names=[ADAPTER])
    denoiser.unload_lora()


def _check_targets(denoiser: nn.Module, targets: tuple[str, ...]) -> None:
    layers = [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            check_known(target, sorted({_ending(name) for name in layers}), what="module of training.lora.targets")


def _ending(module: str) -> str:
    """The shortest end of a module's name that does not begin with a number: "to_q", "to_out.0"."""
    parts = module.split(".")
    first = max(place for place, part in enumerate(parts) if not part.isdigit())
    return ".".join(parts[first:])
