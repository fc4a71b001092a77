"""Trains tiny-sd or tiny-sdxl: python -m smpo.tiny.train_base --family sd --vae FOLDER --out FOLDER."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTokenizer

from smpo.tiny.base_models import FAMILIES, BaseModel, build_scheduler, save_base
from smpo.tiny.captions import noisy_caption
from smpo.tiny.corpus import TrainingLog, one_cycle, rendered, to_unit
from smpo.tiny.scenes import Scene
from smpo.tiny.tokenizer import build_tokenizer, encode

LEARNING_RATE = 1.2e-3
EMA_DECAY = 0.995


@dataclass(frozen=True)
class BaseRun:
    """What is trained and for how long; `start` is an earlier base whose weights are taken over where they fit."""

    family: str
    num_steps: int
    batch_size: int
    num_images: int
    start: Path | None


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
    """Weighted mean squared error of the predicted noise at random timesteps, for latents (B, 4, 8, 8).

    The weight sqrt(1 + 1 / SNR) = 1 / sqrt(alphas_cumprod) runs from 1 (t = 0) to 15 (t = 999): the plain error hardly
    counts the noisiest steps, where background, place and colour are decided, and text is learnt late.
    """
    scheduler = build_scheduler()
    noise = torch.randn(x_0.shape, generator=generator)
    timesteps = torch.randint(1000, (len(x_0),), generator=generator)
    x_t = scheduler.add_noise(x_0, noise, timesteps)
    is_empty = torch.tensor([not caption for caption in captions])
    error = F.mse_loss(model(x_t, timesteps, encode(tokenizer, captions), is_empty), noise, reduction="none")
    return (error.mean(dim=(1, 2, 3)) * scheduler.alphas_cumprod[timesteps] ** -0.5).mean()


def warm_start(model: BaseModel, folder: Path) -> int:
    """Copy into `model` each weight of a saved base that has its name and shape; returns how many were copied.

    An "sdxl" model takes over from an "sd" one all but what reads the text.
    """
    found = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        for path in (folder / part).glob("*.safetensors"):
            found |= {f"{part}.{name}": value.float() for name, value in load_file(path).items()}
    own = model.state_dict()
    taken = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(taken, strict=False)
    return len(taken)


def train(run: BaseRun, vae: AutoencoderKL, out: Path) -> None:
    """Train a base; every 500 steps and at the end write the EMA weights as a diffusers folder."""
    torch.manual_seed(FAMILIES.index(run.family))
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = build_tokenizer()
    model = BaseModel(run.family, tokenizer)
    if run.start:
        print(f"{warm_start(model, run.start)} of {len(model.state_dict())} weights taken from {run.start}")
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    log = TrainingLog(out / "training_log.jsonl")
    data = encode_corpus(vae, run.num_images)
    mean_loss = 1.0
    for step in range(run.num_steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * one_cycle(step, run.num_steps)
        chosen = torch.randint(run.num_images, (run.batch_size,), generator=generator)
        noise = torch.randn(data.mean[chosen].shape, generator=generator)
        captions = [noisy_caption(data.scenes[i], rng) for i in chosen.tolist()]
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
    """Command line: --family, --vae, --out, --steps, --batch, --images, --start."""
    parser = argparse.ArgumentParser(description="Train a tiny base model on noisy captions.")
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--vae", type=Path, required=True, help="folder that train_vae wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--start", type=Path, help="folder of an earlier base to go on from")
    args = parser.parse_args()
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(args.vae)
    train(BaseRun(args.family, args.steps, args.batch, args.images, args.start), vae, args.out)


if __name__ == "__main__":
    main()
