"""Seam 2: noisings, the members by name; `noising.Noising` is the contract."""

from typing import TYPE_CHECKING

from smpo.core.registry import Registry

if TYPE_CHECKING:
    from smpo.noising.noising import Noising

NOISINGS: Registry["Noising"] = Registry("noising", {
    "forward": "smpo.noising.forward:Forward",
    "ddim": "smpo.noising.inversion:DDIM",
    "renoise": "smpo.noising.inversion:ReNoise",
    "heun": "smpo.noising.inversion:Heun",
    "midpoint": "smpo.noising.inversion:Midpoint",
    "renoise_every": "smpo.noising.inversion:ReNoiseEvery",
    "chained": "smpo.noising.chained:Chained",
    "released": "smpo.noising.released:Released",
})
