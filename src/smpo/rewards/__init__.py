"""Seam 5: scorers. `(images, prompts) -> (B,)` float32, with a name, units and bounds."""

from smpo.core.registry import Registry

SCORERS = Registry("scorer", {
    "pickscore": "smpo.rewards.pickscore:PickScore",
    "hpsv2": "smpo.rewards.hpsv2:HpsV2",
    "imagereward": "smpo.rewards.imagereward:ImageReward",
    "aesthetic": "smpo.rewards.aesthetic:Aesthetic",
    "clip": "smpo.rewards.clip:ClipScore",
    "verifier": "smpo.tiny.verifier:Verifier",
})
