"""Trains tiny-reward or tiny-clip.

    python -m examples.tiny_world.train_clip --name tiny-reward --vae FOLDER --out FOLDER
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPModel

from examples.tiny_world.clip_models import build_clip, embeddings, normalised, save_clip
from examples.tiny_world.corpus import TrainingLog, one_cycle, rendered, to_unit
from examples.tiny_world.tokenizer import build_tokenizer, encode
from smpo.tiny.prompts import phrase
from smpo.tiny.scenes import BACKGROUNDS, COLOURS, KINDS, POSITIONS, SIZES, Scene, SceneObject

LEARNING_RATE = 1.5e-3


@dataclass(frozen=True)
class ClipRecipe:
    """Size and training of one CLIPModel.

    Args:
        seed: of the weights and the images.
        width: of the image tower and the embedding.
        num_layers: of the image tower.
        num_hard: negatives per image that differ in one attribute, >= 0.
    """

    seed: int
    width: int
    num_layers: int
    num_hard: int


RECIPES = {
    "tiny-reward": ClipRecipe(seed=31, width=128, num_layers=5, num_hard=2),
    "tiny-clip": ClipRecipe(seed=47, width=96, num_layers=4, num_hard=0),
}


def changed_in_one(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene that differs from `scene` in exactly one attribute."""
    while True:
        i = int(rng.integers(len(scene.objects)))
        things, background = list(scene.objects), scene.background
        words = {"kind": KINDS, "colour": tuple(COLOURS), "background": tuple(BACKGROUNDS)}
        if len(things) == 1:
            words |= {"position": tuple(POSITIONS), "size": tuple(SIZES)}
        name = str(rng.choice(list(words)))
        word = words[name][rng.integers(len(words[name]))]
        if name == "background":
            background = word
        else:
            fields = {"kind": things[i].kind, "colour": things[i].colour}
            fields |= {"position": things[i].position, "size": things[i].size} | {name: word}
            things[i] = SceneObject(**fields)
        try:
            changed = Scene(tuple(things), background)
        except ValueError:
            continue
        if changed != scene:
            return changed


def degraded(images: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 images (B, 3, 64, 64), each blurred by a random amount, with noise and a shift of tint."""
    x = images.float()
    blur = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share, amount = torch.rand((2, len(x), 1, 1, 1), generator=generator)
    tint = 6 * torch.randn((len(x), 3, 1, 1), generator=generator)
    noise = 8 * amount * torch.randn(x.shape, generator=generator)
    return (x + 0.8 * share * (blur - x) + tint + noise).clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def reconstructed(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """uint8 images after a round trip through the VAE."""
    rounds = [vae.decode(vae.encode(to_unit(chunk)).latent_dist.mean).sample for chunk in images.split(64)]
    return ((torch.cat(rounds).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def clip_loss(model: CLIPModel, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
    """Symmetric contrastive loss; the first B captions belong to the B images, the others are extra negatives."""
    image, text = embeddings(model, pixel_values, input_ids)
    logits = model.logit_scale.exp().clamp(max=100) * image @ text.T  # (B, N)
    target = torch.arange(len(image))
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : len(image)].T, target))


def captions_of(scenes: list[Scene], num_hard: int, rng: np.random.Generator) -> list[str]:
    """One caption of each scene, then `num_hard` captions of scenes that differ from each in one attribute."""
    hard = [phrase(changed_in_one(scene, rng), rng) for scene in scenes for _ in range(num_hard)]
    return [phrase(scene, rng) for scene in scenes] + hard


def train(name: str, vae: AutoencoderKL, out: Path, *, num_steps: int, batch_size: int, num_images: int) -> None:
    """Train the named model for `num_steps` on renders of which half went through the VAE; save under `out`."""
    recipe = RECIPES[name]
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    tokenizer = build_tokenizer()
    scenes, images = rendered(num_images, seed=300 + recipe.seed)
    half = num_images // 2
    images[:half] = reconstructed(vae, images[:half])
    model = build_clip(tokenizer, width=recipe.width, num_layers=recipe.num_layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05, betas=(0.9, 0.98))
    log = TrainingLog(out / "training_log.jsonl")
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * one_cycle(step, num_steps)
        chosen = torch.randint(num_images, (batch_size,), generator=generator)
        captions = captions_of([scenes[i] for i in chosen.tolist()], recipe.num_hard, rng)
        pixel_values = normalised(degraded(images[chosen], generator))
        input_ids = encode(tokenizer, captions)
        longest = int((input_ids == tokenizer.eos_token_id).int().argmax(dim=1).max()) + 1
        loss = clip_loss(model, pixel_values, input_ids[:, :longest])  # padding follows the pooled token: no effect
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 0 or step == num_steps - 1:
            log(step, loss=loss.item())
    save_clip(model, tokenizer, out)


def main() -> None:
    """Command line: --name, --vae, --out, --steps, --batch, --images."""
    parser = argparse.ArgumentParser(description="Train a small CLIPModel on renders and captions.")
    parser.add_argument("--name", choices=sorted(RECIPES), required=True)
    parser.add_argument("--vae", type=Path, required=True, help="folder that train_vae wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=5000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(args.vae)
    train(args.name, vae, args.out, num_steps=args.steps, batch_size=args.batch, num_images=args.images)


if __name__ == "__main__":
    main()
