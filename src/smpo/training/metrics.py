"""What a run reports at each optimizer step, summed over micro-batches and processes, and its metrics.jsonl."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smpo.artefacts import write_atomically
from smpo.records import PairErrors
from smpo.training.step import StepOutput

SUMS = (
    "pairs", "bad", "loss", "judged", "right", "logit", "logit_squared",
    "error_w", "error_l", "error_delta_w", "error_delta_l",
)


def step_sums(output: StepOutput, p_winner: Tensor) -> Tensor:
    """The sums over a micro-batch named by SUMS, shape (11,), float64 where the device has it; no host sync.

    A pair of weight zero (p_winner = 1/2) has no preference and is not judged; a margin of exactly zero is half right.
    """
    errors, loss = output.errors, output.loss.detach()
    zero = torch.zeros_like(loss)
    delta_w, delta_l = error_deltas(errors)
    margin = zero if delta_w is None or delta_l is None else delta_l - delta_w
    judged = zero if output.logit is None else (p_winner != 0.5).to(loss)
    toward = margin * torch.sign(p_winner - 0.5)
    right = judged * ((toward > 0).to(loss) + 0.5 * (toward == 0).to(loss))
    logit = zero if output.logit is None else output.logit.detach()
    columns = (
        torch.ones_like(loss), (~torch.isfinite(loss)).to(loss), loss, judged, right, logit, logit.square(),
        errors.policy_w.detach(), zero if errors.policy_l is None else errors.policy_l.detach(),
        zero if delta_w is None else delta_w, zero if delta_l is None else delta_l,
    )
    return torch.stack([column.double().sum() for column in columns])


def error_deltas(errors: PairErrors) -> tuple[Tensor | None, Tensor | None]:
    """L - L_ref of winners and losers, shape (B,) each, detached; None where there is no reference or no loser."""
    delta_w = None if errors.reference_w is None else (errors.policy_w - errors.reference_w).detach()
    delta_l = None if errors.reference_l is None else (errors.policy_l - errors.reference_l).detach()
    return delta_w, delta_l


def summarise(sums: Tensor) -> dict[str, float]:
    """Means over all pairs of an optimizer step; what has no meaning for the objective is left out."""
    total = dict(zip(SUMS, sums.tolist(), strict=True))
    pairs = total["pairs"]
    means = {"loss": total["loss"] / pairs, "error_w": total["error_w"] / pairs}
    if total["error_l"]:
        means["error_l"] = total["error_l"] / pairs
    if total["judged"]:
        mean = total["logit"] / pairs
        means |= {
            "implicit_accuracy": total["right"] / total["judged"],
            "logit_mean": mean,
            "logit_std": math.sqrt(max(0.0, total["logit_squared"] / pairs - mean**2)),
            "error_delta_w": total["error_delta_w"] / pairs,
            "error_delta_l": total["error_delta_l"] / pairs,
        }
    return means


class MetricsLog:
    """Appends one JSON object a line; opening it for a resumed run drops the lines after the checkpoint's step."""

    def __init__(self, path: Path, *, resume_step: int) -> None:
        self.path = path
        kept = []
        if path.exists():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= resume_step]
        write_atomically(path, "".join(line + "\n" for line in kept))

    def append(self, values: dict[str, Any]) -> None:
        """Write one line, through to the operating system."""
        with open(self.path, "a") as file:
            file.write(json.dumps(values) + "\n")
