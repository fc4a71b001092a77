"""Seam 4: model families. A family hides how a model is loaded, conditioned, asked for noise and saved."""

from smpo.core.registry import Registry

FAMILIES = Registry("model.family", {
    "sd": "smpo.models.sd:StableDiffusion",
    "sdxl": "smpo.models.sdxl:StableDiffusionXL",
})
