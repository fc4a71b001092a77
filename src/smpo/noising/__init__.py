"""Seam 2: noising. `(predict, batch, alphas_cumprod) -> NoisyPair`: latents, targets and *their own* timesteps."""

from smpo.registry import Registry

NOISINGS = Registry("noising", {
    "forward": "smpo.noising.forward:Forward",
    "ddim": "smpo.noising.inversion:DDIM",
    "renoise": "smpo.noising.inversion:ReNoise",
    "heun": "smpo.noising.inversion:Heun",
    "released": "smpo.noising.released:Released",
})
