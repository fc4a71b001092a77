"""From the CPU to the device without waiting for it.

What a step computes from timesteps alone (levels, rows, labels, coefficients) stays on the CPU and is sent over when it
is needed, so that the host never asks the device for a number in the middle of a step and can run ahead of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, from the CPU, on `device`; through pinned memory to a GPU, for from any other the copy waits.

    Apple's MPS shares the CPU's memory, and is never handed a copy that may still be under way.
    """
    if tensor.device == device:
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "mps")
