"""Weights are looked at before they are saved: a NaN or infinite one ends the run with its name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from smpo.core.errors import NonFiniteError


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors with a value that is NaN or infinite; of a split tensor, this process's part.

    One wait for each device, whatever the number of tensors.
    """
    flags: dict[torch.device, tuple[list[str], list[Tensor]]] = {}
    for name, tensor in tensors.items():
        here = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        if here.is_floating_point() and here.numel():
            names, values = flags.setdefault(here.device, ([], []))
            names.append(name)
            values.append(torch.isfinite(here.detach()).all())
    return [
        name for names, values in flags.values()
        for name, fine in zip(names, torch.stack(values).cpu().tolist(), strict=True) if not fine
    ]


def check_finite(names: list[str], *, step: int, what: str, checkpoints: object) -> None:
    """NonFiniteError unless `names`, of tensors that are not finite, is empty; nothing of this step is saved then."""
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise NonFiniteError(
            f"{what} not finite after step {step} ({names[0]}{more}); nothing of it is saved. Lower "
            f"training.optimizer.lr; earlier checkpoints: {checkpoints}"
        )
