"""What a run reports at each optimizer step, summed over micro-batches and processes, and its metrics.jsonl."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smpo.core.artefacts import write_atomically
from smpo.core.precision import widest_float
from smpo.core.records import PairErrors
from smpo.training.step import StepOutput

SUMS = (
    "pairs", "bad", "loss", "judged", "right", "logit", "logit_squared",
    "winners", "losers", "referenced", "error_w", "error_l", "error_delta_w", "error_delta_l",
    "pooled", "reference_point", "nfe_grad", "nfe_no_grad",
)


def step_sums(output: StepOutput, p_winner: Tensor) -> Tensor:
    """The sums over a micro-batch named by SUMS, shape (18,), in `widest_float`; no host sync.

    Right is an example whose logit is positive, half right one whose logit is zero; where p_winner = 1/2 there is
    nothing to judge by. An image shown alone counts as winner or loser by its p_winner.
    """
    errors, loss = output.errors, output.loss.detach()
    zero, one = torch.zeros_like(loss), torch.ones_like(loss)
    logit = zero if output.logit is None else output.logit.detach()
    judged = zero if output.logit is None else (p_winner != 0.5).to(loss)
    right = judged * ((logit > 0).to(loss) + 0.5 * (logit == 0).to(loss))
    point, counted = errors.reference_point, output.evaluations
    columns = (
        one, (~torch.isfinite(loss)).to(loss), loss, judged, right, logit, logit.square(), *_by_image(errors, p_winner),
        zero if point is None else one, zero if point is None else point.expand_as(loss),
    )
    wide = widest_float(loss.device)
    counts = [loss.new_full((), count, dtype=wide) for count in (counted.trained, counted.free)]
    return torch.stack([*(column.to(wide).sum() for column in columns), *counts])


def _by_image(errors: PairErrors, p_winner: Tensor) -> tuple[Tensor, ...]:
    """Which examples show a winner, a loser, have a reference; errors and their deltas of both; shape (B,) each."""
    w, zero = errors.policy_w.detach(), torch.zeros_like(errors.policy_w)
    referenced = zero if errors.reference_w is None else zero + 1
    delta_w = zero if errors.reference_w is None else w - errors.reference_w
    if errors.policy_l is not None:
        l_l = errors.policy_l.detach()
        delta_l = zero if errors.reference_l is None else l_l - errors.reference_l
        return zero + 1, zero + 1, referenced, w, l_l, delta_w, delta_l
    winner = (p_winner > 0.5).to(w)
    loser = 1 - winner
    return winner, loser, referenced, winner * w, loser * w, winner * delta_w, loser * delta_w


def summarise(sums: Tensor) -> dict[str, float]:
    """Means over all examples of an optimizer step; what has no meaning for the objective is left out."""
    total = dict(zip(SUMS, sums.tolist(), strict=True))
    pairs = total["pairs"]
    means = {"loss": total["loss"] / pairs}
    for side, shown in (("w", total["winners"]), ("l", total["losers"])):
        if shown:
            means[f"error_{side}"] = total[f"error_{side}"] / shown
        if shown and total["referenced"]:
            means[f"error_delta_{side}"] = total[f"error_delta_{side}"] / shown
    if total["judged"]:
        mean = total["logit"] / pairs
        means |= {
            "implicit_accuracy": total["right"] / total["judged"],
            "logit_mean": mean,
            "logit_std": math.sqrt(max(0.0, total["logit_squared"] / pairs - mean**2)),
        }
    if total["pooled"]:
        means |= {
            "reference_point": total["reference_point"] / total["pooled"],
            "desirable_share": total["winners"] / pairs,
        }
    counts = ("nfe_grad", "nfe_no_grad")
    return means | {name: total[name] / pairs for name in counts}


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
