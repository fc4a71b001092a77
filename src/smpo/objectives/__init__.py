"""Seam 3: objectives, the members by name; `objective.Objective` is the contract."""

from typing import TYPE_CHECKING

from smpo.core.registry import Registry

if TYPE_CHECKING:
    from smpo.objectives.objective import Objective

OBJECTIVES: Registry["Objective"] = Registry("objective", {
    "smpo": "smpo.objectives.smpo:SmPO",
    "dpo": "smpo.objectives.dpo:DPO",
    "sft": "smpo.objectives.sft:SFT",
    "kto": "smpo.objectives.kto:KTO",
    "mapo": "smpo.objectives.mapo:MaPO",
    "ipo": "smpo.objectives.ipo:IPO",
    "cdpo": "smpo.objectives.cdpo:ConservativeDPO",
    "linear": "smpo.objectives.linear:Linear",
})
