"""Precision on a device: whether float32 products are rounded to TF32, and which type is the widest."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Context in which float32 matrix products and convolutions use TF32 on NVIDIA GPUs, or full float32.

    TF32 is faster and keeps 10 bits of the mantissa, a relative error of 1e-3. PyTorch's default is TF32 for
    convolutions and float32 for products. The previous settings are restored at the end. Also a decorator.
    """
    switches = precision_switches(tf32=tf32)
    previous = [(place, attribute, getattr(place, attribute)) for place, attribute, _ in switches]
    for place, attribute, value in switches:
        setattr(place, attribute, value)
    try:
        yield
    finally:
        for place, attribute, value in previous:
            setattr(place, attribute, value)


def precision_switches(*, tf32: bool) -> list[tuple[Any, str, Any]]:
    """(object, attribute, value) of torch's settings of TF32; on CPUs products stay float32."""
    backends: Any = torch.backends  # torch's annotations lack the settings that 2.9 has added
    if hasattr(backends, "fp32_precision"):  # since torch 2.9, where reading the older settings may raise an error
        precision = "tf32" if tf32 else "ieee"
        return [
            (backends.cuda.matmul, "fp32_precision", precision), (backends.cudnn.conv, "fp32_precision", precision),
            (backends.mkldnn.matmul, "fp32_precision", "ieee"), (backends.mkldnn.conv, "fp32_precision", "ieee"),
        ]
    return [(backends.cuda.matmul, "allow_tf32", tf32), (backends.cudnn, "allow_tf32", tf32)]


def widest_float(device: torch.device) -> torch.dtype:
    """The type for sums on `device`: float64, or float32 on Apple's MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
