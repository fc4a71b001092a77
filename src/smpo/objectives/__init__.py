"""Seam 3: objectives. A frozen dataclass of hyper-parameters; `(errors, p_winner) -> loss (B,)`.

Every one says what a step must give it:
    needs_reference: whether the reference's errors are computed.
    needs_reference_point: whether the errors must carry the step's `reference_point`.
    winner_share: None where an example shows both images of its pair; else it shows one, the winner with this
    probability. takes_smoothed_labels: whether `p_winner` may be other than certain.
"""

from typing import Any

from smpo.core.registry import Registry

OBJECTIVES: Registry[Any] = Registry("objective", {
    "smpo": "smpo.objectives.smpo:SmPO",
    "dpo": "smpo.objectives.dpo:DPO",
    "sft": "smpo.objectives.sft:SFT",
    "kto": "smpo.objectives.kto:KTO",
    "mapo": "smpo.objectives.mapo:MaPO",
    "ipo": "smpo.objectives.ipo:IPO",
    "cdpo": "smpo.objectives.cdpo:ConservativeDPO",
    "linear": "smpo.objectives.linear:Linear",
})


def needs_reference_model(objective: Any, noising: Any) -> bool:
    """Whether training asks a reference for its errors, or to invert."""
    return objective.needs_reference or noising.network == "reference"


def unit_of_batch(objective: Any) -> str:
    """What a batch of `objective` counts: "pairs", or "images" where an example shows one image of its pair."""
    return "pairs" if objective.winner_share is None else "images"
