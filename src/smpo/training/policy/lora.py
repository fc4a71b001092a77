"""LoRA (Hu et al. 2021) on the UNet: adapters that are trained, and the frozen reference as the UNet without them.

One copy of the weights serves policy and reference: the policy is the base with adapters, the reference the base alone.
The adapters are peft's; what follows holds for any UNet, and for one without adapters every parameter is trained.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn

from smpo.core.checks import check_known
from smpo.training.options import LoraOptions

ADAPTER = "smpo"
INITS = {"kaiming": True, "gaussian": "gaussian"}  # peft's names; B is zero in both: the policy starts as the reference


class AdaptersOff(nn.Module):
    """The UNet without its adapters, in eval mode: the reference that needs no second copy of the weights.

    Called like the UNet, it answers bit for bit what the UNet did before it had adapters, and leaves it as it was.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The bare UNet's answer."""
        training = self.unet.training
        self.unet.eval()
        self.unet.disable_adapters()
        try:
            return self.unet(*args, **kwargs)
        finally:
            self.unet.enable_adapters()
            self.unet.train(training)


def add_adapters(unet: UNet2DConditionModel, options: LoraOptions, *, seed: int) -> None:
    """Freeze `unet` and give its target modules trainable adapters, drawn from `seed`.

    Raises:
        ConfigError: a target is the name of no linear or convolutional module.
    """
    _check_targets(unet, options.targets)
    config = LoraConfig(
        r=options.rank, lora_alpha=options.scaled_by, lora_dropout=options.dropout, use_dora=options.dora,
        target_modules=list(options.targets), init_lora_weights=INITS[options.init],
    )
    with torch.random.fork_rng(devices=[]):  # on the CPU, whichever device is to come
        torch.manual_seed(seed)
        unet.add_adapter(config, ADAPTER)


def trained_parameters(unet: nn.Module) -> list[nn.Parameter]:
    """The parameters that get gradients, in the UNet's order."""
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def trained_tensors(unet: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor of what is trained: the state that a checkpoint needs beside the base's weights."""
    return {name: parameter.detach() for name, parameter in unet.named_parameters() if parameter.requires_grad}


def restore_trained(unet: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `trained_tensors` gave."""
    assert tensors.keys() == trained_tensors(unet).keys(), "a checkpoint of other modules"
    unet.load_state_dict(tensors, strict=False)  # not strict: the frozen base is where it was


def fuse(unet: UNet2DConditionModel) -> None:
    """Add the adapters into the weights of `unet` and take them off: an ordinary UNet remains."""
    unet.fuse_lora(safe_fusing=True, adapter_names=[ADAPTER])
    unet.unload_lora()


def _check_targets(unet: nn.Module, targets: tuple[str, ...]) -> None:
    layers = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            check_known(target, sorted({_ending(name) for name in layers}), what="module of training.lora.targets")


def _ending(module: str) -> str:
    """The shortest end of a module's name that does not begin with a number: "to_q", "to_out.0"."""
    parts = module.split(".")
    first = max(place for place, part in enumerate(parts) if not part.isdigit())
    return ".".join(parts[first:])
