"""The released SmPO's training step (commit 8922d54), its work written afresh with plain diffusers and PyTorch calls.

What it does for every pair, and ours does not: a batch of one; the VAE encodes both images and the text encoders the
prompt, again in every step; the inversion takes its two predictions at each mark of a fixed grid below t; reference and
policy are called apart; four numbers go to the host after every pair. METHODS 3.3.

It gives the same loss and gradient as our step with `noising: {name: released}`, a test proves it, for it leaves out
three faults that cost no time: negative timestep labels, alpha-bar rounded to fp16, and one weight for a whole batch.
Reading, decoding and tokenising are left out as well, in its favour: pixels and token ids are given.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class ReleasedPair:
    """One pair as its loader gives it, winner first, and its random draws.

    Attributes:
        pixels: in [-1, 1], shape (2, 3, H, W).
        token_ids: one (1, L) for each text encoder.
        p_winner: the smoothed probability of the winner.
        timestep: t, in [1, 999], shape (), int64.
        posterior: standard normal, of the VAE's posterior, shape (2, C, h, w).
    """

    pixels: Tensor
    token_ids: tuple[Tensor, ...]
    p_winner: float
    timestep: Tensor
    posterior: Tensor


@dataclass(frozen=True)
class ReleasedModels:
    """The networks; all but the policy are frozen, and held in the half precision where one is used.

    Attributes:
        policy: trained, float32 weights.
        reference: a second copy of its start.
        vae: with its scaling factor.
        text_encoders: one for SD1.5, two for SDXL.
        alphas_cumprod: alpha-bar, shape (T,).
        autocast: makes the context of the policy's calls.
        half: the type of the frozen networks' inputs.
    """

    policy: UNet2DConditionModel
    reference: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[nn.Module, ...]
    alphas_cumprod: Tensor
    autocast: Callable[[], AbstractContextManager]
    half: torch.dtype = torch.float32


@dataclass(frozen=True)
class ReleasedOptions:
    """The script's numbers.

    Attributes:
        grid: what `set_timesteps` is given, 5 for SD1.5 and 10 for SDXL.
        beta: 2000 or 5000.
        gamma: a literal 10 there.
        max_grad_norm: of the clipping.
    """

    grid: int = 5
    beta: float = 2000.0
    gamma: float = 10.0
    max_grad_norm: float = 1.0


class ReleasedTrainer:
    """An optimizer step at a time over given pairs, one after the other."""

    def __init__(self, models: ReleasedModels, optimizer: Optimizer, options: ReleasedOptions) -> None:
        self.models, self.optimizer, self.options = models, optimizer, options

    def step(self, pairs: Sequence[ReleasedPair]) -> dict[str, float]:
        """The means of what the script logs, after one optimizer step that accumulates over `pairs`."""
        self.models.policy.train()
        logged: list[list[float]] = []
        for pair in pairs:
            loss, shown = pair_loss(self.models, pair, self.options)
            logged.append([value.item() for value in (loss, *shown)])
            (loss / len(pairs)).backward()
        nn.utils.clip_grad_norm_(self.models.policy.parameters(), self.options.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        names = ("loss", "model_mse", "ref_mse", "implicit_acc")
        return {name: sum(values) / len(pairs) for name, values in zip(names, zip(*logged, strict=True), strict=True)}


def pair_loss(
    models: ReleasedModels, pair: ReleasedPair, options: ReleasedOptions
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss of one pair, shape (), and what is logged of it: errors of policy and reference, accuracy."""
    with torch.no_grad():
        x_0 = encoded_images(models, pair)
        given = encoded_prompt(models, pair)
        x_t = inverted(models, x_0, pair.timestep, given, options)
    abar = models.alphas_cumprod[pair.timestep]
    target = (x_t - x_0 * abar**0.5) / (1 - abar) ** 0.5
    policy = errors(by_policy(models, x_t, pair.timestep, given), target)
    with torch.no_grad():
        reference = errors(noise_of(models.reference, x_t, pair.timestep, given), target)
    difference = (policy[0] - policy[1]) - (reference[0] - reference[1])
    inside = -0.5 * options.beta * (2 * pair.p_winner - 1) * options.gamma * difference
    return -F.logsigmoid(inside), (policy.detach().mean(), reference.mean(), (inside.detach() > 0).float())


def encoded_images(models: ReleasedModels, pair: ReleasedPair) -> Tensor:
    """Scaled latents of both images, sampled from the VAE's posterior, shape (2, C, h, w)."""
    posterior = models.vae.encode(pair.pixels.to(models.half)).latent_dist
    sampled = posterior.mean + posterior.std * pair.posterior.to(models.half)
    return sampled * models.vae.config.scaling_factor


def encoded_prompt(models: ReleasedModels, pair: ReleasedPair) -> dict[str, Tensor]:
    """The UNet's conditioning of both images: the prompt is encoded once and repeated."""
    if len(models.text_encoders) == 1:
        return {"hidden": models.text_encoders[0](pair.token_ids[0])[0].repeat(2, 1, 1)}
    outputs = [
        encoder(ids, output_hidden_states=True)
        for encoder, ids in zip(models.text_encoders, pair.token_ids, strict=True)
    ]
    hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    side = pair.pixels.shape[-1]
    sizes = torch.tensor([[side, side, 0, 0, side, side]] * 2, dtype=hidden.dtype, device=hidden.device)
    return {"hidden": hidden.repeat(2, 1, 1), "pooled": outputs[-1].text_embeds.repeat(2, 1), "sizes": sizes}


def inverted(
    models: ReleasedModels, x_0: Tensor, timestep: Tensor, given: dict[str, Tensor], options: ReleasedOptions
) -> Tensor:
    """Both images' latents carried up the grid: at every mark below t a move along the mean of two predictions."""
    last = len(models.alphas_cumprod)
    stride, x = last // options.grid, x_0
    marks = torch.arange(1 - stride, last - stride, stride, device=timestep.device)
    for mark in marks[marks < timestep].tolist():
        label, onward = max(mark, 0), mark + stride
        first = by_policy(models, x, timestep.new_tensor(label), given)
        second = by_policy(models, moved(models, x, first, label, onward), timestep.new_tensor(label), given)
        x = moved(models, x, (first + second) / 2, label, onward)
    return x


def moved(models: ReleasedModels, x: Tensor, noise: Tensor, start: int, end: int) -> Tensor:
    """DDIM's inverse move from level `start` to level `end`."""
    abar_start, abar_end = models.alphas_cumprod[start], models.alphas_cumprod[end]
    clean = (x - (1 - abar_start) ** 0.5 * noise) / abar_start**0.5
    return abar_end**0.5 * clean + (1 - abar_end) ** 0.5 * noise


def by_policy(models: ReleasedModels, x: Tensor, label: Tensor, given: dict[str, Tensor]) -> Tensor:
    """The policy's noise, float32."""
    with models.autocast():
        return noise_of(models.policy, x, label, given).float()


def noise_of(unet: UNet2DConditionModel, x: Tensor, label: Tensor, given: dict[str, Tensor]) -> Tensor:
    """A UNet's prediction for both images, asked in the type of the conditioning, as the script casts them."""
    added = {"text_embeds": given["pooled"], "time_ids": given["sizes"]} if "pooled" in given else None
    hidden = given["hidden"]
    return unet(x.to(hidden.dtype), label.repeat(2), hidden, added_cond_kwargs=added).sample


def errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each image, shape (2,)."""
    return (prediction - target).pow(2).mean(dim=[1, 2, 3])
