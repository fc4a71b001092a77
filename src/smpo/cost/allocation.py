"""What a UNet's forward keeps for its backward, measured on the meta device: shapes only, nothing is computed."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

IN_HALF = frozenset({torch.conv2d, F.linear})
IN_FLOAT32 = frozenset({torch.group_norm, torch.layer_norm})
PRODUCTS = frozenset({torch.conv2d, F.linear, F.scaled_dot_product_attention})


class FusedAttention(torch.autograd.Function):
    """Attention as the fused kernels do it: kept are its inputs, output and one number a query, never the weights."""

    @staticmethod
    def forward(ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """An output of the query's shape."""
        output = torch.empty_like(query)
        normaliser = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, normaliser)
        return output


class GpuKernels(TorchFunctionMode):
    """Calls as they happen on a GPU: fused attention, and under autocast in the precision that CUDA's autocast picks.

    The meta device has no autocast of its own, and its attention writes out the matrix of weights. `product` is called
    with the output of every matrix product, convolution and attention.
    """

    def __init__(self, half: torch.dtype | None, product: Callable[[Tensor], object] | None = None) -> None:
        self.half, self.product = half, product
        self.cast_weights: dict[int, Tensor] = {}

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = self._run(func, list(args), kwargs or {})
        if self.product is not None and func in PRODUCTS:
            self.product(output)
        return output

    def _run(self, func: Callable, given: list[Any], kwargs: dict[str, Any]) -> Any:
        if func is F.scaled_dot_product_attention:
            return FusedAttention.apply(*(self._cast(value, self.half) for value in given[:3]))
        if self.half is not None and func in IN_HALF:
            given = [self._cast(value, self.half) for value in given]
        elif self.half is not None and func in IN_FLOAT32:
            given = [self._cast(value, torch.float32) for value in given]
        return func(*given, **kwargs)

    def _cast(self, value: Any, dtype: torch.dtype | None) -> Any:
        if not isinstance(value, Tensor) or dtype is None or value.dtype == dtype:
            return value
        cast = value.to(dtype)
        if isinstance(value, nn.Parameter):
            self.cast_weights[id(value)] = cast
        return cast


class SavedActivations:
    """The tensors that a forward keeps, each storage counted once, by the checkpointed unit that made them."""

    def __init__(self, weights: nn.Module) -> None:
        self.storages = [parameter.untyped_storage() for parameter in weights.parameters()]  # alive: no id returns
        self.weights = {storage._cdata for storage in self.storages}
        self.always: dict[int, int] = {}
        self.units: list[dict[int, int]] = []
        self.inside: dict[int, int] | None = None

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor saved for the backward."""
        self._count(tensor, self.always if self.inside is None else self.inside)
        return tensor

    def keep_inside(self, tensor: Tensor) -> None:
        """Count a tensor that a checkpointed unit keeps, although what it is made of is made again."""
        if self.inside is not None:
            self._count(tensor, self.always)

    def checkpointed(self, unit: Callable, *args: Any) -> Any:
        """Call a unit whose inner tensors are made again in the backward; its inputs stay."""
        for value in args:
            if isinstance(value, Tensor):
                self._count(value, self.always)
        self.inside = {}
        self.units.append(self.inside)
        output = unit(*args)
        self.inside = None
        return output

    def _count(self, tensor: Tensor, where: dict[int, int]) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            where[storage._cdata] = storage.nbytes()
            self.storages.append(storage)


def activation_bytes(
    unet: nn.Module, inputs: dict[str, Any], *, half: torch.dtype | None, checkpointing: bool | str
) -> tuple[int, int]:
    """(kept, temporary) bytes of a training step's activations; their sum is the most that is alive at once.

    SavedActivations is what forward leaves to the backward: with checkpointing, the inputs of the units, and where it
    is selective the outputs of their products. Temporary is what comes on top while gradients flow: three tensors as
    large as the largest kept, and with checkpointing the largest unit, made again, or autocast's copies of the weights,
    which live as long as the forward.

    Args:
        unet: on the meta device.
        inputs: keyword arguments of its call, on the meta device.
        half: autocast's type, None without mixed precision.
        checkpointing: whether, or "selective"; at diffusers' resolution of residual and transformer blocks.
    """
    kept = SavedActivations(unet)
    kernels = GpuKernels(half, kept.keep_inside if checkpointing == "selective" else None)
    unet.train()
    if checkpointing:
        enable: Any = unet.enable_gradient_checkpointing  # of diffusers' models, untyped
        enable(kept.checkpointed)
    with ExitStack() as stack:
        stack.enter_context(saved_tensors_hooks(kept.keep, lambda tensor: tensor))
        stack.enter_context(kernels)
        unet(**inputs)
    sizes = [size for saved in (kept.always, *kept.units) for size in saved.values()]
    units = [sum(size for storage, size in unit.items() if storage not in kept.always) for unit in kept.units]
    casts = sum(cast.untyped_storage().nbytes() for cast in kernels.cast_weights.values()) if checkpointing else 0
    return sum(kept.always.values()), 3 * max(sizes) + max([casts, *units])
