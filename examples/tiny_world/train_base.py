"""Trains tiny-sd or tiny-sdxl.

    python -m examples.tiny_world.train_base --family sd --vae FOLDER --out FOLDER
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTokenizer

from examples.tiny_world.base_models import FAMILIES, BaseModel, build_scheduler, save_base
from examples.tiny_world.captions import noisy_caption, right_caption
from examples.tiny_world.corpus import TrainingLog, one_cycle, rendered, to_unit
from examples.tiny_world.tokenizer import build_tokenizer, encode
from smpo.tiny.scenes import Scene

LEARNING_RATE = 1.2e-3
RIGHT_SHARE = 0.7  # of the steps, the first ones, with right captions: words are learnt much faster from these
EMA_DECAY = 0.995


@dataclass(frozen=True)
class BaseRun:
    """What is trained and for how long."""

    family: str
    num_steps: int
    batch_size: int
    num_images: int


@dataclass(frozen=True)
class LatentSet:
    """Scenes and the VAE posterior of their images: mean and std, each (N, 4, 8, 8), already scaled."""

    scenes: list[Scene]
    mean: Tensor
    std: Tensor


@torch.no_grad()
def encode_corpus(vae: AutoencoderKL, num_images: int) -> LatentSet:
    """The training scenes and their posterior moments, computed once."""
    scenes, images = rendered(num_images, seed=202)
    posteriors = [vae.encode(to_unit(chunk)).latent_dist for chunk in images.split(64)]
    scale = vae.config.scaling_factor
    mean = torch.cat([posterior.mean for posterior in posteriors])
    return LatentSet(scenes, mean * scale, torch.cat([posterior.std for posterior in posteriors]) * scale)


def noise_loss(
    model: BaseModel, x_0: Tensor, captions: list[str], tokenizer: CLIPTokenizer, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the predicted noise for latents (B, 4, 8, 8), mostly at large timesteps.

    A timestep's share is proportional to sqrt(1 + 1 / SNR) = 1 / sqrt(alphas_cumprod), 15 times larger at t = 999 than
    at 0: uniform ones hardly count the noisiest steps, where background, place and colour are decided, and text is
    learnt late.
    """
    scheduler = build_scheduler()
    noise = torch.randn(x_0.shape, generator=generator)
    share = scheduler.alphas_cumprod**-0.5
    timesteps = torch.multinomial(share, len(x_0), replacement=True, generator=generator)
    x_t = scheduler.add_noise(x_0, noise, timesteps)
    is_empty = torch.tensor([not caption for caption in captions])
    return F.mse_loss(model(x_t, timesteps, encode(tokenizer, captions), is_empty), noise)


def train(run: BaseRun, vae: AutoencoderKL, out: Path) -> None:
    """Train a base; every 500 steps and at the end write the EMA weights as a diffusers folder."""
    torch.manual_seed(FAMILIES.index(run.family))
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = build_tokenizer()
    model = BaseModel(run.family, tokenizer)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    log = TrainingLog(out / "training_log.jsonl")
    data = encode_corpus(vae, run.num_images)
    mean_loss = 1.0
    for step in range(run.num_steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * one_cycle(step, run.num_steps)
        chosen = torch.randint(run.num_images, (run.batch_size,), generator=generator)
        noise = torch.randn(data.mean[chosen].shape, generator=generator)
        caption_of = right_caption if step < RIGHT_SHARE * run.num_steps else noisy_caption
        captions = [caption_of(data.scenes[i], rng) for i in chosen.tolist()]
        loss = noise_loss(model, data.mean[chosen] + data.std[chosen] * noise, captions, tokenizer, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(model)
        mean_loss += 0.02 * (loss.item() - mean_loss)
        if step % 25 == 0 or step == run.num_steps - 1:
            log(step, loss=loss.item(), mean_loss=mean_loss)
        if step % 500 == 499 or step == run.num_steps - 1:
            save_base(average.module, vae, out)


def main() -> None:
    """Command line: --family, --vae, --out, --steps, --batch, --images."""
    parser = argparse.ArgumentParser(description="Train a tiny base model on noisy captions.")
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--vae", type=Path, required=True, help="folder that train_vae wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=8000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(args.vae)
    train(BaseRun(args.family, args.steps, args.batch, args.images), vae, args.out)


if __name__ == "__main__":
    main()
