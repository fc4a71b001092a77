"""Seam 5: scorers. `(images, prompts) -> (B,)` float32, with a name, units and bounds."""

from smpo.registry import Registry

SCORERS = Registry("scorer", {
    "pickscore": "smpo.rewards.clip:PickScore",
    "clip": "smpo.rewards.clip:ClipScore",
    "verifier": "smpo.tiny.verifier:Verifier",
})
