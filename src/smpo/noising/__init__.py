"""Seam 2: noising. `(predict, batch, alphas_cumprod) -> NoisyPair`: latents, targets and *their own* timesteps.

Every one says what it must be given:
    network: which UNet predicts, "policy", "reference" or None.
    chain_length: so many rows of a batch in a row belong together: one pair with the same draws, at rising timesteps.
"""

from typing import Any

from smpo.core.registry import Registry

NOISINGS: Registry[Any] = Registry("noising", {
    "forward": "smpo.noising.forward:Forward",
    "ddim": "smpo.noising.inversion:DDIM",
    "renoise": "smpo.noising.inversion:ReNoise",
    "heun": "smpo.noising.inversion:Heun",
    "midpoint": "smpo.noising.inversion:Midpoint",
    "renoise_every": "smpo.noising.inversion:ReNoiseEvery",
    "chained": "smpo.noising.chained:Chained",
    "released": "smpo.noising.released:Released",
})
