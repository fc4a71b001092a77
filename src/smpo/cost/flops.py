"""FLOPs of the networks' forwards, counted on the meta device, and what follows for an example and for the cache."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from smpo.cost.architecture import META, Architecture, unet_inputs
from smpo.cost.examples import ExampleCost
from smpo.training.options import TrainingOptions

Count = TypeVar("Count", float, np.ndarray)


@dataclass(frozen=True)
class Forwards:
    """FLOPs of one forward; a multiply-add counts two.

    Attributes:
        unet: of one image's latents.
        vae: of encoding one image.
        text: of encoding one prompt by all text encoders.
    """

    unet: float
    vae: float
    text: float


@torch.no_grad()
def forward_flops(architecture: Architecture, resolution: int) -> Forwards:
    """The forwards at `resolution` px: matrix products, convolutions and attention, as PyTorch's counter has them."""
    unet, vae, encoders = architecture.unet(), architecture.vae(), architecture.text_encoders()
    with FlopCounterMode(display=False) as of_unet:
        unet(**unet_inputs(architecture, 1, resolution))
    with FlopCounterMode(display=False) as of_vae:
        vae.encode(torch.empty(1, 3, resolution, resolution, device=META))
    with FlopCounterMode(display=False) as of_text:
        for encoder in encoders:
            encoder(torch.zeros(1, encoder.config.max_position_embeddings, dtype=torch.long, device=META))
    return Forwards(*(float(counter.get_total_flops()) for counter in (of_unet, of_vae, of_text)))


def trained_forwards(options: TrainingOptions) -> int:
    """What a trained evaluation costs, in forwards.

    The forward itself; the backward, which takes the gradients of every product's two factors, so twice as much, but
    only of one where the weights are frozen under a LoRA (whose own products are not counted); and with gradient
    checkpointing the forward again, unless it keeps the products.
    """
    return (2 if options.lora else 3) + (options.gradient_checkpointing is True)


def flops_per_example(cost: ExampleCost, forward: float, options: TrainingOptions) -> float:
    """FLOPs of an example whose UNet evaluations `cost` counts, at `forward` FLOPs each."""
    return evaluations_flops(cost.nfe_grad, cost.nfe_no_grad, forward=forward, options=options)


def evaluations_flops(trained: Count, free: Count, *, forward: float, options: TrainingOptions) -> Count:
    """FLOPs of so many UNet evaluations with gradient and without, at `forward` FLOPs each; numbers, or arrays."""
    return forward * (trained * trained_forwards(options) + free)
