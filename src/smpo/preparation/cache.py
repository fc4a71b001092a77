"""Stage `cache`: the moments of the VAE's posterior for every view of every image, and the encoded prompts.

Blocks are written whole and renamed, so a killed run carries on; they are memory-mapped when read, so neither the pair
set nor its cache has to fit in memory.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from smpo.core.artefacts import Artefact, Status, begin, fingerprint, finish
from smpo.core.errors import DataError
from smpo.core.parts import Parts, SealedBlocks
from smpo.core.precision import float32_products
from smpo.core.processes import local_device
from smpo.core.progress_lines import Progress
from smpo.data.images import decode_image
from smpo.data.pair_set import PairImages, PairSet
from smpo.models.family import Family
from smpo.models.part_digests import check_same_parts, encoder_parts
from smpo.models.parts import posterior_moments
from smpo.models.schedules import check_timesteps
from smpo.preparation.crops import views_of
from smpo.preparation.options import CacheOptions
from smpo.prompts.lengths import LongPrompts, long_prompts

MODEL = "model."  # prefix of the names of the model's parts among the inputs
BLOCK_PAIRS = 128
BLOCK_PROMPTS = 1024


@dataclass(frozen=True)
class CacheReport:
    """Counts and size of the cache; `skipped` if it was complete before."""

    pairs: int
    prompts: int
    views: int
    long_prompts: LongPrompts
    megabytes: float
    skipped: bool


def cache_pairs(
    pairs: PairSet, family: Family, out: Path, *, options: CacheOptions, progress: Progress | None = None
) -> CacheReport:
    """Write the cache of `pairs` for the VAE and text encoders of `family` into `out`.

    Raises:
        StaleError: `out` is a cache of other pairs or options, or was made with another VAE or text encoder.
        ConfigError: the model is damaged, or training cannot follow its schedule.
        DataError: a value is too large for the stored type.
        ValueError: the VAE gave non-finite latents.
    """
    stored = options.model_dump(exclude={"batch_size"})
    settings = {"family": type(family).__name__, **stored}
    encoders = encoder_parts(family.folder, denoiser=family.component)
    parts = {f"{MODEL}{name}": digest for name, digest in encoders.items()}
    status = begin(out, stage="cache", settings=settings, inputs={"pairs": pairs.fingerprint, **parts})
    if status is not Status.DONE:
        check_timesteps(family.path, 1)  # refuses a schedule that cannot be trained with before the work
        device = torch.device(local_device())
        prompts, blocks = sorted(set(pairs.captions) - {""}), Parts.open(out)
        _write_prompts(["", *prompts], family, blocks, options=options, device=device)
        vae = family.load_vae(getattr(torch, options.vae_dtype)).to(device)
        _write_latents(pairs, vae, blocks, options=options, progress=progress)
        finish(out, {
            "pairs": len(pairs), "prompts": 1 + len(prompts), "views": options.views.num_views,
            "long_prompts": asdict(long_prompts(prompts, family.folder)), "content": _content(blocks),
        }, sealed=blocks.of_all())
    artefact = Artefact.open(out, stage="cache")
    megabytes = sum(seal.size for seal in artefact.seals.values()) / 1e6
    results = artefact.results
    return CacheReport(
        results["pairs"], results["prompts"], results["views"], LongPrompts(**results["long_prompts"]),
        megabytes=megabytes, skipped=status is Status.DONE,
    )


def _content(parts: Parts) -> str:
    """Digest of all blocks, that is of the values that training reads."""
    return fingerprint({name: seal.entry for name, seal in parts.of_all().items()})


def check_encoders(cache: "LatentCache", family: Family) -> None:
    """Raise StaleError unless the cache was made with the VAE, text encoders and tokenizers of `family`."""
    made_with = {name.removeprefix(MODEL): digest for name, digest in cache.manifest["inputs"].items()
                 if name.startswith(MODEL)}
    check_same_parts(
        encoder_parts(family.folder, denoiser=family.component), made_with, made=str(cache.folder), model=family.source,
        again="set paths.cache to another folder, or delete this one, and run `smpo cache`",
    )


class LatentCache:
    """A finished cache. Its blocks are memory-mapped, and each is checked at its first use.

    Pair i of the pair set is row i. The views of an image are: crop 0, its mirror image, crop 1, its mirror image, ...
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.artefact = folder, Artefact.open(folder, stage="cache")
        self.manifest, self.fingerprint = self.artefact.manifest, self.artefact.fingerprint
        self.num_views: int = self.manifest["results"]["views"]
        self.flips: bool = self.manifest["settings"]["flips"]

    def __len__(self) -> int:
        return self.manifest["results"]["pairs"]

    def moments(self, pair: int, image: int, view: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents, each (C, h, w), float32."""
        block, row = divmod(pair, BLOCK_PAIRS)
        mean, std = (self._latents[name][block][row, image, view] for name in ("mean", "std"))
        return torch.from_numpy(np.array(mean)).float(), torch.from_numpy(np.array(std)).float()

    def size(self, pair: int, image: int, view: int) -> Tensor:
        """Original h, w, crop top, left, target h, w, in px, shape (6,), int64."""
        block, row = divmod(pair, BLOCK_PAIRS)
        return torch.from_numpy(np.array(self._latents["size"][block][row, image, view])).long()

    def prompts(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Encoded prompts by row, name -> (n, ...), float32; row 0 is the empty prompt."""
        places = [divmod(row, BLOCK_PROMPTS) for row in rows]
        return {
            name: torch.stack([torch.from_numpy(np.array(blocks[block][row])) for block, row in places]).float()
            for name, blocks in self._prompts.items()
        }

    @cached_property
    def _latents(self) -> dict[str, SealedBlocks]:
        return {name: SealedBlocks(self.artefact, f"latents/{name}") for name in ("mean", "std", "size")}

    @cached_property
    def _prompts(self) -> dict[str, SealedBlocks]:
        files = [file.removeprefix("prompts/") for file in self.artefact.seals if file.startswith("prompts/")]
        names = sorted({file.rsplit("-", 1)[0] for file in files})
        return {name: SealedBlocks(self.artefact, f"prompts/{name}") for name in names}


def prompt_rows(captions: Sequence[str]) -> list[int]:
    """The row of each caption among the cached prompts; row 0 is the empty prompt."""
    order = {caption: row for row, caption in enumerate(["", *sorted(set(captions) - {""})])}
    return [order[caption] for caption in captions]


@torch.no_grad()
@float32_products(tf32=False)
def _write_prompts(
    prompts: Sequence[str], family: Family, parts: Parts, *, options: CacheOptions, device: torch.device
) -> None:
    for number, start in enumerate(range(0, len(prompts), BLOCK_PROMPTS)):
        block_lost = any(name.startswith("prompts/") and name.endswith(f"-{number:05d}.npy") for name in parts.lost)
        if f"prompts/hidden-{number:05d}.npy" in parts and not block_lost:  # written last
            continue
        block = prompts[start : start + BLOCK_PROMPTS]
        pieces = [family.encode_prompts(block[i : i + 64], device) for i in range(0, len(block), 64)]
        tensors = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        if start == 0 and options.empty_prompt == "zeros":
            for tensor in tensors.values():
                tensor[0] = 0
        for name in sorted(tensors, key=lambda name: name == "hidden"):
            save_block(parts, f"prompts/{name}-{number:05d}.npy", tensors[name], dtype=options.dtype)


@float32_products(tf32=False)
def _write_latents(
    pairs: PairSet, vae: AutoencoderKL, parts: Parts, *, options: CacheOptions, progress: Progress | None
) -> None:
    for number, start in enumerate(range(0, len(pairs), BLOCK_PAIRS)):
        stop = min(start + BLOCK_PAIRS, len(pairs))
        names = [f"latents/{name}-{number:05d}.npy" for name in ("mean", "std", "size")]
        if not all(name in parts for name in names):
            tensors = _encode_block(pairs.iter_images(start, stop), vae, options=options)
            for name, tensor, dtype in zip(names, tensors, (options.dtype, options.dtype, "int32"), strict=True):
                save_block(parts, name, tensor, dtype=dtype)
        if progress:
            progress(stop, len(pairs))


def _encode_block(
    pairs: Iterator[PairImages], vae: AutoencoderKL, *, options: CacheOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Means and standard deviations (n, 2, V, C, h, w) and sizes (n, 2, V, 6) of a block of pairs."""
    means, stds, sizes = [], [], []
    waiting: list[Tensor] = []

    def encode() -> None:
        if waiting:
            mean, std = posterior_moments(vae, torch.stack(waiting))
            means.append(mean.cpu())
            stds.append(std.cpu())
            waiting.clear()

    for pair in pairs:
        for side, data in enumerate((pair.image_0, pair.image_1)):
            for view in views_of(decode_image(data), options.views, key=f"{pair.pair_id}/{side}"):
                waiting.append(view.pixels)
                target = (options.resolution,) * 2
                sizes.append(view.size if options.sizes == "real" else (*target, 0, 0, *target))
                if len(waiting) == options.batch_size:
                    encode()
    encode()
    shape = (-1, 2, options.views.num_views)
    mean, std = torch.cat(means), torch.cat(stds)
    return mean.unflatten(0, shape), std.unflatten(0, shape), torch.tensor(sizes).unflatten(0, shape)


def save_block(parts: Parts, name: str, tensor: Tensor, *, dtype: str) -> None:
    """Write `tensor` as the .npy file `name` with type `dtype`, whole or not at all.

    Raises:
        DataError: a value is too large for the type.
    """
    with np.errstate(over="ignore"):
        stored = tensor.numpy().astype(dtype)
    if not np.isfinite(stored).all():
        raise DataError(f"{Path(name).stem} has values beyond {dtype}; set cache.dtype=float32")
    buffer = io.BytesIO()
    np.save(buffer, stored)
    parts.write(name, buffer.getvalue())
