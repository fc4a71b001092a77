"""Seam 3: objectives. A frozen dataclass of hyper-parameters; `(errors, p_winner) -> loss (B,)`."""

from smpo.registry import Registry

OBJECTIVES = Registry("objective", {
    "smpo": "smpo.objectives.smpo:SmPO",
    "dpo": "smpo.objectives.dpo:DPO",
    "sft": "smpo.objectives.sft:SFT",
})
