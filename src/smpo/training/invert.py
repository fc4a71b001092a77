"""`smpo invert`: the examples of a training run, noised ahead of it and seen by the reference, once.

Training then needs neither inversion nor a reference UNet. Blocks are written whole and renamed, so a killed run
carries on; the processes that were started together share them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from smpo.core.artefacts import Artefact, Status, begin, finish
from smpo.core.errors import NonFiniteError, StaleError
from smpo.core.parts import Parts
from smpo.core.precision import float32_products
from smpo.core.processes import Process, main_first, shard, this_process, wait_for_all
from smpo.core.records import CachedInversion, TrainingBatch
from smpo.core.signals import left_to_parent
from smpo.noising.latents import pair_at
from smpo.preparation.cache import MODEL
from smpo.training.learners.learner import Networks
from smpo.training.learners.preference import NFE, PreferenceLearner
from smpo.training.preference_run import PreferenceRun
from smpo.training.run import model_inputs
from smpo.training.sources.cached import STAGE, CachedInversions, block_size, holds_block, write_block
from smpo.training.sources.order import distinct_examples
from smpo.training.sources.pairs import MicroBatches

DRAWN = (
    "cached_inversion_epochs", "caption_dropout", "flips", "latents", "min_timestep", "max_timestep", "mixed_precision",
)
"""The training options that the noised latents or the reference's errors depend on."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class InvertReport:
    """What the stage made, or found made.

    Attributes:
        examples: in the store.
        megabytes: on disk.
        evaluations: UNet evaluations an example, the mean over what this process computed now; None if that is nothing.
    """

    examples: int
    megabytes: float
    evaluations: float | None


class Chunks(Dataset):
    """The batches of some positions of the run's order, which a loader's sampler names."""

    def __init__(self, batches: MicroBatches) -> None:
        self.batches = batches

    def __getitem__(self, positions: Sequence[int]) -> TrainingBatch:
        return self.batches.at(positions)


def cache_inversions(run: PreferenceRun, out: Path, *, progress: Progress | None = None) -> InvertReport:
    """Complete the store of `run`'s examples in `out`; one that was made for fewer examples grows.

    Args:
        run: what is to be trained.
        out: folder of the store.
        progress: called with (examples stored, all) after each block, as far as this process knows.

    Raises:
        StaleError: `out` was made from other inputs or settings.
        NonFiniteError: a noised latent or an error is not finite.
        DataError: a latent does not fit into the cache's type.
        ProcessError: another process ended early.
    """
    accelerator = Accelerator(mixed_precision=run.options.mixed_precision)
    weights = run.reference_weights or run.init_weights
    reference = run.family.load_denoiser(weights).requires_grad_(False).eval().to(accelerator.device)
    settings, inputs, examples = store_settings(run), store_inputs(run), num_examples(run)

    def opened() -> tuple[Status, Parts]:
        status = begin(out, stage=STAGE, settings=settings, inputs=inputs)
        return status, Parts.open(out, compare=status is not Status.DONE)

    status, there = main_first("open the cached inversions", opened)
    blocks = _blocks(examples, block_size(run.order))
    missing = [number for number, block in enumerate(blocks) if not holds_block(there, number, len(block))]
    wait_for_all("list the missing examples")
    networks = Networks(reference, reference, reference, accelerator.autocast)
    nfe, mine = NFE(), shard(missing)
    computed, before = 0, examples - sum(len(blocks[number]) for number in missing)
    inversions = _inversions(run, [blocks[number] for number in mine], networks, nfe)
    for number, inversion in zip(mine, inversions, strict=True):
        write_block(there, number, inversion, dtype=run.cache.manifest["settings"]["dtype"])
        computed += len(blocks[number])
        if progress:
            progress(before + computed, examples)
    wait_for_all("noise their share of the examples")
    if this_process().is_main and (missing or status is not Status.DONE or there.unsealed):
        known = Artefact.open(out, stage=STAGE).results["examples"] if status is Status.DONE else 0
        finish(out, {"examples": max(examples, known)}, sealed=there.of_all())
    wait_for_all("finish the cached inversions")
    artefact = Artefact.open(out, stage=STAGE)
    megabytes = sum(seal.size for seal in artefact.seals.values()) / 1e6
    each = nfe.no_grad / computed if computed else None
    return InvertReport(artefact.results["examples"], megabytes, each)


def _blocks(examples: int, size: int) -> list[range]:
    """The positions of each block."""
    return [range(start, min(start + size, examples)) for start in range(0, examples, size)]


def _inversions(
    run: PreferenceRun, blocks: Sequence[range], networks: Networks, nfe: NFE
) -> Iterator[CachedInversion]:
    """What is to be stored of each block; its micro-batches are those of a training on one process."""
    size, device = run.options.micro_batch_size, next(networks.policy.parameters()).device
    chunks = [[block[start : start + size] for start in range(0, len(block), size)] for block in blocks]
    loader = iter(DataLoader(
        Chunks(MicroBatches(run.source, Process())), batch_size=None,
        sampler=[chunk for block in chunks for chunk in block],
        num_workers=run.options.workers, worker_init_fn=left_to_parent, pin_memory=device.type == "cuda",
    ))
    dtype = getattr(torch, run.cache.manifest["settings"]["dtype"])
    for block in chunks:
        with float32_products(tf32=run.options.tf32):
            parts = [cached_inversion(next(loader).to(device), run.learner, networks, nfe, dtype=dtype) for _ in block]
        yield CachedInversion(
            torch.cat([part.x_t for part in parts], dim=1), torch.cat([part.timesteps for part in parts]),
            torch.cat([part.reference for part in parts], dim=1),
        )


@torch.no_grad()
def cached_inversion(
    batch: TrainingBatch, learner: PreferenceLearner, networks: Networks, nfe: NFE, *, dtype: torch.dtype
) -> CachedInversion:
    """What is to be stored of a batch, on the CPU, its latents in float32 but rounded to `dtype`.

    The reference is asked about the rounded latents, so that a policy with its weights has exactly its errors.

    Raises:
        NonFiniteError: a latent is not finite before rounding, or an error of finite latents; it names their pairs.
    """
    noisy = learner.noised(batch, networks, nfe)
    x_t = noisy.x_t.to(dtype).float()
    rounded = pair_at(batch.x_0, x_t, noisy.timesteps, learner.family.path)
    reference = learner.reference_errors(batch, rounded, networks, nfe)
    assert reference is not None  # checked with the recipe
    fits = x_t.isfinite().all(dim=(2, 3, 4)) | ~noisy.x_t.isfinite().all(dim=(2, 3, 4))
    bad = (fits & ~reference.isfinite()).any(dim=0).tolist()  # what does not fit is refused when it is written
    if any(bad):
        names = ", ".join(name for name, is_bad in zip(batch.ids, bad, strict=True) if is_bad)
        raise NonFiniteError(
            f"the latents or the reference's errors of pairs {names} are not finite; look at these pairs, or set "
            "training.mixed_precision=bf16 or no"
        )
    return CachedInversion(x_t.cpu(), noisy.timesteps.cpu(), reference.cpu())


def with_cached_inversions(run: PreferenceRun, folder: Path) -> PreferenceRun:
    """`run` with the store in `folder` as one of its inputs.

    Raises:
        DataError: there is none, or it is unfinished.
        StaleError: it was made from other inputs or settings, or for a shorter training.
    """
    cached = CachedInversions(folder, run.order, len(run.pairs))
    begin(folder, stage=STAGE, settings=store_settings(run), inputs=store_inputs(run))
    if len(cached) < num_examples(run):
        raise StaleError(
            f"{folder} holds {len(cached)} examples, training makes {num_examples(run)}; run `smpo invert` again"
        )
    # without the number of examples: a store that has grown for a longer training is still what the run began with
    return replace(run, cached=cached, inputs={**run.inputs, STAGE: cached.manifest["fingerprint"]})


def store_inputs(run: PreferenceRun) -> dict[str, str]:
    """What a store is made from: the run's inputs and, by content, reference and scheduler; not the policy's start."""
    start = f"{MODEL}{run.family.component}"
    return {**run.inputs, **{name: digest for name, digest in model_inputs(run).items() if name != start}}


def store_settings(run: PreferenceRun) -> dict[str, Any]:
    """What decides the content of a store, beside its inputs."""
    return {
        "family": type(run.family).__name__, "noising": run.settings["noising"],
        "winner_share": run.objective.winner_share, "seed": run.seed,
        "training": run.options.model_dump(mode="json", include=set(DRAWN)),
    }


def num_examples(run: PreferenceRun) -> int:
    """How many different examples the run makes."""
    return distinct_examples(
        run.options.steps * run.options.batch_size, num_pairs=len(run.pairs), order=run.order
    )
