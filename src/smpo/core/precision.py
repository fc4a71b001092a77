"""What float32 means on a device: whether products of it are rounded to TF32, and whether float64 stands above it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Inside, matrix products and convolutions of float32 tensors are exact to float32, or, on NVIDIA, TF32's.

    TF32 keeps 10 bits of a factor's mantissa, 1e-3, and is faster; by itself PyTorch takes it for convolutions but not
    for products. The caller's choice is given back afterwards. Also a decorator.
    """
    switches = precision_switches(tf32=tf32)
    callers = [(place, attribute, getattr(place, attribute)) for place, attribute, _ in switches]
    for place, attribute, value in switches:
        setattr(place, attribute, value)
    try:
        yield
    finally:
        for place, attribute, value in callers:
            setattr(place, attribute, value)


def precision_switches(*, tf32: bool) -> list[tuple[Any, str, Any]]:
    """(where, attribute, value) of what lets torch round products and convolutions; those of CPUs stay exact."""
    backends: Any = torch.backends  # torch's annotations lack the settings that 2.9 has added
    if hasattr(backends, "fp32_precision"):  # torch 2.9; reading the older switches may then raise an error
        asked = "tf32" if tf32 else "ieee"
        return [
            (backends.cuda.matmul, "fp32_precision", asked), (backends.cudnn.conv, "fp32_precision", asked),
            (backends.mkldnn.matmul, "fp32_precision", "ieee"), (backends.mkldnn.conv, "fp32_precision", "ieee"),
        ]
    return [(backends.cuda.matmul, "allow_tf32", tf32), (backends.cudnn, "allow_tf32", tf32)]


def widest_float(device: torch.device) -> torch.dtype:
    """The type to sum in on `device`: float64, or float32 on Apple's MPS, which has no wider one."""
    return torch.float32 if device.type == "mps" else torch.float64
