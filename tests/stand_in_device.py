"""A stand-in for a GPU: tensors that say "cuda:0" or "mps:0" and hold real numbers on the CPU.

Inside `StandIn`, what is made or moved there becomes a `Remote`, whose operations run on what it holds. It raises where
a tensor of the CPU meets one of the device, and, in place of MPS, where something is float64; it counts the waits of
the host for the device: copies back, numbers asked for, and operations whose result's shape depends on values.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.is_nonzero.default, aten.equal.default,
    aten.masked_select.default, aten.unique_dim.default, aten._unique2.default,
}
MOVES = (Tensor.to, Tensor.cpu, Tensor.cuda)


class DeviceMix(AssertionError):
    """A tensor of the CPU met one of the device."""


class Remote(torch.Tensor):
    """A tensor on the stand-in's device."""

    inner: Tensor
    where: "StandIn"

    @staticmethod
    def __new__(cls, inner: Tensor, where: "StandIn") -> "Remote":
        """A wrapper of `inner`, itself without gradient."""
        if inner.dtype == torch.float64 and where.device.type == "mps":
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        self = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, layout=inner.layout, device="cpu"
        )
        self.inner, self.where = inner, where
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:
        """Where the tensor says that it lies."""
        return self.where.device

    is_cuda = property(lambda self: self.where.device.type == "cuda")
    is_mps = property(lambda self: self.where.device.type == "mps")
    is_cpu = property(lambda self: False)

    def __repr__(self, **_: Any) -> str:
        return f"Remote({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """The operation on what the tensors hold."""
        kwargs = dict(kwargs or {})
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        remotes = [leaf for leaf in leaves if isinstance(leaf, Remote)]
        where = remotes[0].where
        where.check(func, leaves, args)
        outcome = func(*tree_map(held, args), **tree_map(held, kwargs))
        known = {id(remote.inner): remote for remote in remotes}

        def there(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return known[id(leaf)] if id(leaf) in known else Remote(leaf, where)

        return tree_map(there, outcome)


def held(leaf: Any) -> Any:
    """What a Remote holds; anything else as it is."""
    return leaf.inner if isinstance(leaf, Remote) else leaf


class StandIn(TorchFunctionMode):
    """Sends what is made on, or moved to, the device there.

    Attributes:
        device: its name, "cuda:0" or "mps:0".
        waits: how often the host has waited for it.
        seen: operations that ran there.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.waits, self.seen = torch.device(device), 0, 0

    def __enter__(self) -> "StandIn":
        """Modules that move get new parameters, for a Remote cannot be put inside an ordinary one."""
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        super().__exit__(*raised)

    def check(self, func: Any, tensors: list[Tensor], args: tuple) -> None:
        """Count an operation and its waits; raise where it takes tensors of both places."""
        self.seen += 1
        masks = func is aten.index.Tensor and any(one is not None and one.dtype == torch.bool for one in args[1])
        self.waits += func in WAITING or masks
        foreign = [one for one in tensors if not isinstance(one, Remote) and one.ndim]
        if foreign and func not in (aten.copy_.default,):
            shapes = [tuple(one.shape) for one in foreign]
            raise DeviceMix(f"{func} takes tensors of {self.device} and of the CPU, these of shape {shapes}")

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """A call of torch's: moves and makings are taken over, all else is let through."""
        kwargs = dict(kwargs or {})
        if func in MOVES:
            return self._moved(func, *args, **kwargs)
        if func is Tensor.pin_memory:
            return args[0].clone()
        if args and isinstance(args[0], Remote) and func in (Tensor.untyped_storage, Tensor.data_ptr, Tensor.numpy):
            if func is Tensor.numpy:
                raise DeviceMix(f"can't convert {self.device} tensor to numpy")
            return func(args[0].inner, **kwargs)
        if self._is_here(kwargs.get("device")):
            made = func(*args, **{**kwargs, "device": "cpu"})
            return made if isinstance(made, Remote) else Remote(made, self)
        return func(*args, **kwargs)

    def _is_here(self, device: Any) -> bool:
        return device is not None and torch.device(device).type == self.device.type

    def _moved(self, func: Callable, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, Tensor):
            args, kwargs = (), {"device": other.device, "dtype": other.dtype}
        if func is not Tensor.to:
            kwargs, args = {"device": "cpu" if func is Tensor.cpu else self.device}, ()
        target = kwargs.pop("device", None)
        rest = []
        for one in args:
            if isinstance(one, (str, torch.device)):
                target = one
            else:
                rest.append(one)
        target = x.device if target is None else torch.device(target)
        dtype = kwargs.pop("dtype", None) or next((one for one in rest if isinstance(one, torch.dtype)), x.dtype)
        shape = {"memory_format": kwargs["memory_format"]} if kwargs.get("memory_format") is not None else {}
        copy = bool(kwargs.get("copy"))
        if target.type == x.device.type:
            return Tensor.to(x, dtype=dtype, copy=copy, **shape)
        if isinstance(x, Remote):
            self.waits += not kwargs.get("non_blocking")
            return x.detach().inner.to(dtype=dtype, copy=True, **shape)
        if self._is_here(target):
            return Remote(x.detach().to(dtype=dtype, copy=True, **shape), self).requires_grad_(x.requires_grad)
        return func(x, *args, **kwargs)
