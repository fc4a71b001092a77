"""Seam 5: scorers, which judge images. Their contract is `smpo.rewards.scorer.Scorer`."""

from typing import TYPE_CHECKING

from smpo.core.registry import Member, Registry

if TYPE_CHECKING:
    from smpo.rewards.scorer import Scorer

SCORERS: "Registry[Scorer]" = Registry("scorer", {
    "pickscore": Member("smpo.rewards.pickscore:PickScore", settings="smpo.rewards.settings:PickScoreSettings"),
    "hpsv2": Member("smpo.rewards.hpsv2:HpsV2", settings="smpo.rewards.settings:HpsV2Settings"),
    "imagereward": Member("smpo.rewards.imagereward:ImageReward", settings="smpo.rewards.settings:ImageRewardSettings"),
    "aesthetic": Member("smpo.rewards.aesthetic:Aesthetic", settings="smpo.rewards.settings:AestheticSettings"),
    "clip": Member("smpo.rewards.clip:ClipScore", settings="smpo.rewards.settings:ClipSettings"),
    "verifier": Member("smpo.tiny.verifier:Verifier", settings="smpo.core.registry:NoSettings"),
})
