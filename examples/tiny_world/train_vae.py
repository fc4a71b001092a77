"""Trains the tiny world's AutoencoderKL (64 px -> 8 x 8 x 4 latents).

    python -m examples.tiny_world.train_vae --out FOLDER

With --encoder FOLDER only the decoder of an earlier VAE is trained further. Its latents stay the same, so the bases
that were trained on them stay valid.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from examples.tiny_world.corpus import TrainingLog, one_cycle, rendered, to_unit

KL_WEIGHT = 1e-6  # SD's own: keeps the latents bounded and costs no sharpness
EDGE_WEIGHT = 1.0
SQUARE_WEIGHT = 4.0  # L1 alone settles on the commonest colour for hundreds of steps: a squared error moves at once
CURRICULUM = ((0.3, 16, 16), (0.7, 32, 8), (1.0, 64, 8))  # until this share of the steps: window in px, batch size
WHOLE_IMAGES = ((1.0, 64, 8),)
LEARNING_RATE = 1.5e-3
INITIAL_LOG_VARIANCE = -9.0  # at PyTorch's initial 0 the sampled noise drowns the untrained latents for 500 steps


def build_vae() -> AutoencoderKL:
    """A fresh AutoencoderKL of 1.7 M parameters with SD's four levels (factor 8) and four latent channels."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    start_linear(vae)
    return vae


@torch.no_grad()
def start_linear(vae: AutoencoderKL) -> None:
    """Initialise in place so that the fresh VAE is close to a linear one that hands flat colours through.

    PyTorch's own start shrinks a signal by sqrt(3) at each convolution: after seven of them on the way to the latents
    the colour of a region is lost among the residual branches, and finding it again takes a thousand steps.
    """
    for name, module in vae.named_modules():
        if name.endswith("conv2") or name.endswith("to_out.0"):
            module.weight.mul_(0.1)
        elif isinstance(module, torch.nn.Conv2d) and not name.endswith("conv1"):
            module.weight.mul_(3**0.5)
            module.bias.zero_()
    vae.quant_conv.bias[vae.config.latent_channels :] = INITIAL_LOG_VARIANCE
    vae.quant_conv.weight[vae.config.latent_channels :].mul_(0.1)


def edge_loss(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical pixel gradients of two batches (B, 3, H, W)."""
    difference = x - y
    horizontal = difference.diff(dim=3).abs().mean()
    return horizontal + difference.diff(dim=2).abs().mean()


def foreground_of(images: Tensor) -> Tensor:
    """True where uint8 images (B, 3, 64, 64) differ from their first column, the backdrop; (B, 1, 64, 64)."""
    difference = (images.int() - images[:, :, :, :1].int()).abs()
    return difference.amax(dim=1, keepdim=True) > 20


def random_crops(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A window of `side` px at a random place of each image, (B, C, side, side)."""
    corners = torch.randint(images.shape[-1] - side + 1, (len(images), 2), generator=generator).tolist()
    windows = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(images, corners, strict=True)]
    return torch.stack(windows)


def vae_loss(
    vae: AutoencoderKL, x: Tensor, foreground: Tensor, generator: torch.Generator, *, square_weight: float
) -> tuple[Tensor, Tensor]:
    """Loss to minimise and plain L1 of a batch (B, 3, H, W) in [-1, 1]; the foreground counts double."""
    posterior = vae.encode(x).latent_dist
    reconstruction = vae.decode(posterior.sample(generator)).sample
    error = (reconstruction - x).abs()
    weighted = (error + square_weight * error.square()) * (1 + foreground)
    loss = weighted.mean() + EDGE_WEIGHT * edge_loss(reconstruction, x)
    return loss + KL_WEIGHT * posterior.kl().mean(), error.mean()


@torch.no_grad()
def latent_std(vae: AutoencoderKL, images: Tensor) -> float:
    """Standard deviation of the posterior means of uint8 images (B, 3, 64, 64)."""
    means = [vae.encode(to_unit(chunk)).latent_dist.mean for chunk in images.split(64)]
    return float(torch.cat(means).std())


def train(out: Path, *, num_steps: int, num_images: int, encoder: Path | None) -> None:
    """Train for `num_steps` and save the VAE under `out`; a folder given as `encoder` lends its fixed encoder."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    _, images = rendered(num_images, seed=101)
    images_and_masks = torch.cat([images, foreground_of(images).to(torch.uint8)], dim=1)  # (N, 4, 64, 64)
    vae = AutoencoderKL.from_pretrained(encoder) if encoder else build_vae()
    curriculum, square_weight = (WHOLE_IMAGES, 0.0) if encoder else (CURRICULUM, SQUARE_WEIGHT)
    vae.to(memory_format=torch.channels_last)
    vae.encoder.requires_grad_(encoder is None)
    vae.quant_conv.requires_grad_(encoder is None)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, weight_decay=1e-4, betas=(0.9, 0.99))
    log = TrainingLog(out / "training_log.jsonl")
    mean_l1 = 0.7
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * one_cycle(step, num_steps)
        side, batch_size = next((px, size) for share, px, size in curriculum if step < share * num_steps)
        chosen = torch.randint(num_images, (batch_size,), generator=generator)
        batch = random_crops(images_and_masks[chosen], side, generator)
        x = to_unit(batch[:, :3]).contiguous(memory_format=torch.channels_last)
        loss, l1 = vae_loss(vae, x, batch[:, 3:].float(), generator, square_weight=square_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean_l1 += 0.04 * (l1.item() - mean_l1)
        if step % 25 == 0 or step == num_steps - 1:
            log(step, loss=loss.item(), l1=l1.item(), mean_l1=mean_l1)
        if step % 250 == 249 or step == num_steps - 1:
            if encoder is None:
                vae.register_to_config(scaling_factor=round(1 / latent_std(vae, images[:512]), 5))
            vae.save_pretrained(out)


def main() -> None:
    """Command line: --out, --steps, --images, --encoder."""
    parser = argparse.ArgumentParser(description="Train the tiny world's VAE.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--encoder", type=Path, help="folder of a trained VAE whose encoder stays as it is")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train(args.out, num_steps=args.steps, num_images=args.images, encoder=args.encoder)


if __name__ == "__main__":
    main()
