"""Copies from the CPU to the device without waiting for it.

Values that a step computes from timesteps alone (levels, indices, coefficients) stay on the CPU and are copied when
they are needed. So the CPU never waits for a number from the device within a step, and can work ahead of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, from the CPU, on `device`; to a GPU through pinned memory, without which the copy would wait.

    The copy to Apple's MPS waits: MPS shares the memory of the CPU and could read an unfinished copy.
    """
    if tensor.device == device:
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "mps")
