"""What makes the steps of a denoiser faster or smaller and leaves its maths alone: see docs/speed.md.

Parameters keep their names and values, so that a checkpoint fits a run with other choices.
"""

from functools import partial
from typing import Any

import torch
from diffusers import ModelMixin
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from smpo.training.options import TrainingOptions

aten = torch.ops.aten
PRODUCTS = [
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.convolution.default,
    aten._scaled_dot_product_flash_attention.default, aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default, aten._scaled_dot_product_flash_attention_for_cpu.default,
]
"""What nearly all of a denoiser's time goes into: selective checkpointing keeps these outputs alone."""

COMPILING: dict[str, Any] = {"dynamic": True}
"""One graph for every number of rows above one: an inversion moves fewer from step to step."""

GRAPHS = 64
"""Of one class of blocks: its widths (3 in SD1.5) times train and eval mode, adapters, one row or more; 8 by default,
above which PyTorch goes on without compiling."""


def speed_up(denoiser: ModelMixin, options: TrainingOptions) -> None:
    """Lay out, compile and checkpoint `denoiser` as `options` ask, in place."""
    if options.channels_last:
        denoiser.to(memory_format=torch.channels_last)
    if options.gradient_checkpointing == "selective":
        denoiser.enable_gradient_checkpointing(_keeping_products)
    elif options.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    if options.compile:
        torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
        denoiser.compile_repeated_blocks(**COMPILING)


def _keeping_products(unit: torch.nn.Module, *args: Any) -> Any:
    """Call a unit whose outputs of PRODUCTS are kept for the backward, which makes everything else again."""
    contexts = partial(create_selective_checkpoint_contexts, PRODUCTS)
    return checkpoint(unit.__call__, *args, use_reentrant=False, context_fn=contexts)
