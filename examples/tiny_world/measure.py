"""Measures a tiny base, VAE or reward model on held-out prompts.

    python -m examples.tiny_world.measure --base FOLDER [--reward FOLDER]
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from examples.tiny_world.clip_models import clip_scores
from examples.tiny_world.corpus import from_pil, rendered, to_pil, to_unit
from examples.tiny_world.train_clip import changed_in_one
from smpo.tiny.prompts import phrase, sample_prompts
from smpo.tiny.scenes import attributes
from smpo.tiny.verifier import Verifier, attribute_accuracy, verify

BATCH_SIZE = 32
MIN_SCORE_GAP = 0.01  # verifier scores are multiples of 1/5 or 1/7: nearer ones are equal


def generate(
    pipeline: DiffusionPipeline, prompts: Sequence[str], *, guidance_scale: float, num_steps: int, seed: int
) -> list[Image.Image]:
    """One image per prompt, 64 x 64 px; image i starts from the noise of seed `seed + i`."""
    images = []
    for start in range(0, len(prompts), BATCH_SIZE):
        chunk = list(prompts[start : start + BATCH_SIZE])
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(chunk))]
        images += pipeline(
            chunk, guidance_scale=guidance_scale, num_inference_steps=num_steps, generator=generators
        ).images
    return images


def pair_agreement(truth: Tensor, scores: Tensor) -> tuple[float, int]:
    """How often `scores` prefer what `truth` prefers among pairs whose truths differ, and the number of such pairs.

    Args:
        truth: verifier scores of the two images of each prompt, (P, 2).
        scores: scores of the judged model for the same images, (P, 2).
    """
    differs = (truth[:, 0] - truth[:, 1]).abs() > MIN_SCORE_GAP
    agrees = (truth[:, 0] > truth[:, 1]) == (scores[:, 0] > scores[:, 1])
    return float(agrees[differs].float().mean()), int(differs.sum())


def base_numbers(base: Path, rewards: Sequence[Path], args: argparse.Namespace) -> dict[str, object]:
    """Verifier accuracy of samples for heldout prompts, speed, and each reward's agreement on pairs of samples."""
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    prompts = sample_prompts(args.num, seed=7, split="heldout")
    start_s = time.monotonic()
    first = generate(pipeline, prompts, guidance_scale=args.guidance, num_steps=args.steps, seed=0)
    images_per_s = len(first) / (time.monotonic() - start_s)
    verdicts = Verifier().details(first, prompts)
    truth = Verifier()(first, prompts)
    numbers = {
        "base": base.name,
        "prompts": len(prompts),
        "guidance_scale": args.guidance,
        "steps": args.steps,
        "verifier": round(float(truth.mean()), 4),
        "all_attributes": round(float((truth == 1).float().mean()), 4),
        "attributes": {name: round(share, 4) for name, share in attribute_accuracy(verdicts).items()},
        "images_per_s": round(images_per_s, 2),
        "threads": torch.get_num_threads(),
    }
    if not rewards:
        return numbers
    second = generate(pipeline, prompts, guidance_scale=args.guidance, num_steps=args.steps, seed=100_000)
    truths = torch.stack([truth, Verifier()(second, prompts)], dim=1)
    for folder in rewards:
        model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
        scores = [clip_scores(model, tokenizer, from_pil(images), prompts) for images in (first, second)]
        agreement, num_pairs = pair_agreement(truths, torch.stack(scores, dim=1))
        numbers[folder.name] = {"pair_agreement": round(agreement, 4), "pairs": num_pairs}
    return numbers


@torch.no_grad()
def vae_numbers(folder: Path, num: int) -> dict[str, object]:
    """L1 of reconstructions of heldout renders in [-1, 1], and the verifier's accuracy on renders and on them."""
    vae = AutoencoderKL.from_pretrained(folder)
    scenes, images = rendered(num, seed=77, split="heldout")
    x = to_unit(images)
    y = torch.cat([vae.decode(vae.encode(chunk).latent_dist.mean).sample for chunk in x.split(50)]).clamp(-1, 1)
    numbers: dict[str, object] = {"images": num, "l1": round(float((x - y).abs().mean()), 4)}
    for name, batch in (("renders", x), ("reconstructions", y)):
        verdicts = [verify(image, scene) for image, scene in zip(to_pil(batch), scenes, strict=True)]
        numbers[name] = {attribute: round(share, 4) for attribute, share in attribute_accuracy(verdicts).items()}
    return numbers


def clip_numbers(folder: Path, num: int) -> dict[str, object]:
    """How often a CLIPModel prefers the right caption of a heldout render: to another render's, to a nearly right one.

    The nearly right ones differ in one attribute; `by_attribute` splits them by which.
    """
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    scenes, images = rendered(num, seed=78, split="heldout")
    rng = np.random.default_rng(78)
    changed = [changed_in_one(scene, rng) for scene in scenes]
    right, wrong = (
        clip_scores(model, tokenizer, images, [phrase(scene, rng) for scene in group]) for group in (scenes, changed)
    )
    other = clip_scores(model, tokenizer, images.roll(1, dims=0), [phrase(scene, rng) for scene in scenes])
    by_attribute: dict[str, list[bool]] = {}
    for before, after, is_right in zip(scenes, changed, (right > wrong).tolist(), strict=True):
        name = next(key for key, word in attributes(before).items() if attributes(after)[key] != word)
        by_attribute.setdefault(name.rstrip(" 12"), []).append(is_right)
    return {
        "model": folder.name,
        "images": num,
        "to_another": round(float((right > other).float().mean()), 4),
        "to_nearly_right": round(float((right > wrong).float().mean()), 4),
        "by_attribute": {name: round(sum(answers) / len(answers), 4) for name, answers in by_attribute.items()},
    }


def main() -> None:
    """Command line: --base, --reward (repeatable), --vae, --num, --guidance, --steps; prints json."""
    parser = argparse.ArgumentParser(description="Measure tiny models on heldout prompts.")
    parser.add_argument("--base", type=Path, help="diffusers folder to sample from")
    parser.add_argument("--reward", type=Path, action="append", default=[], help="CLIPModel folder to compare")
    parser.add_argument("--vae", type=Path, help="AutoencoderKL folder to reconstruct with")
    parser.add_argument("--num", type=int, default=200, help="prompts or images")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.vae:
        print(json.dumps(vae_numbers(args.vae, args.num)))
    for folder in args.reward:
        print(json.dumps(clip_numbers(folder, args.num)))
    if args.base:
        print(json.dumps(base_numbers(args.base, args.reward, args)))


if __name__ == "__main__":
    main()
