"""Seam 4: model families. A family hides how a model is loaded, conditioned, asked for noise and saved."""

from typing import TYPE_CHECKING

from smpo.core.registry import Member, Registry

if TYPE_CHECKING:
    from smpo.models.family import Family

FAMILIES: Registry["Family"] = Registry("model.family", {
    "sd": Member("smpo.models.sd:StableDiffusion", settings="smpo.models.settings:FamilySettings"),
    "sdxl": Member("smpo.models.sdxl:StableDiffusionXL", settings="smpo.models.settings:FamilySettings"),
})
