"""Implicit margins of a trained policy on held-out pairs: does it prefer the winners more than its reference does?"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smpo.core.artefacts import Artefact, Status, begin, finish, hash_file, write_atomically
from smpo.core.precision import float32_products
from smpo.core.processes import Process, local_device, main_first
from smpo.core.randomness import derive_seed
from smpo.core.records import Predict
from smpo.maths.preference import implicit_margin
from smpo.models.family import Family
from smpo.models.part_digests import SCHEDULER, check_trained, part_digest
from smpo.models.schedules import check_timesteps
from smpo.models.sources import local_denoiser
from smpo.noising.forward import Forward
from smpo.preparation.cache import LatentCache, check_encoders
from smpo.training.learners.preference import pair_errors, side_errors
from smpo.training.options import ImplicitOptions, OptimizerOptions, TrainingOptions
from smpo.training.sources.order import Example, ExampleOrder
from smpo.training.sources.pairs import MicroBatches, PairSource, TrainingPairs

STAGE = "evaluate"  # the verb that measures it
FILE = "margins.npz"


@dataclass(frozen=True)
class HeldOut:
    """Labelled pairs that no compared model was trained on.

    Attributes:
        pairs: in the cache's order of labels.
        cache: their latents and prompts.
        family: of the models.
        inputs: fingerprints of the artefacts read.
    """

    pairs: TrainingPairs
    cache: LatentCache
    family: Family
    inputs: dict[str, str]


@torch.no_grad()
@float32_products(tf32=False)
def held_out_margins(
    held: HeldOut, denoisers: tuple[nn.Module, nn.Module], *, options: ImplicitOptions,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Implicit margin (the inner difference of Eq. 16) of every pair at every timestep, shape (timesteps, pairs), CPU.

    Forward noise, shared by winner and loser; posterior means, whole captions and unmirrored images, so that nothing is
    random but the noise, which is a function of the seed and the pair.

    Args:
        held: the pairs.
        denoisers: policy and reference.
        options: timesteps, seed.
        progress: called with (forward passes done, all).
    """
    pairs, family, device = held.pairs, held.family, torch.device(local_device())
    policy, reference = (_predictor(family, denoiser.eval().to(device)) for denoiser in denoisers)
    noising, rows = Forward(noise="shared"), range(len(pairs))
    columns, starts = [], range(0, len(pairs), options.batch_size)
    for place, timestep in enumerate(options.timesteps):
        source = PairSource(pairs, held.cache, family, _plain(timestep), ExampleOrder(options.seed))
        batches = MicroBatches(source, Process())
        margins = []
        for number, start in enumerate(starts):
            chosen = rows[start : start + options.batch_size]
            examples = [Example(row, derive_seed(options.seed, "held-out", timestep, row)) for row in chosen]
            batch = batches.collate(examples).to(device)
            noisy = noising(policy, batch, family.path)
            errors = pair_errors(*(side_errors(p, noisy, batch.conditioning) for p in (policy, reference)))
            margins.append(implicit_margin(errors).cpu())
            if progress is not None:
                progress(place * len(starts) + number + 1, len(options.timesteps) * len(starts))
        columns.append(torch.cat(margins))
    return torch.stack(columns)


def measure_held_out(
    held: HeldOut, out: Path, *, policy: str, reference: str | None, options: ImplicitOptions,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `held_out_margins` of the pipeline `policy` to `out`, unless they are there; the main process computes.

    Args:
        held: the pairs.
        out: folder of the artefact.
        policy: a pipeline of the family: folder, hub id or `package://` data.
        reference: where the reference UNet comes from; None is the family's own.
        options: timesteps, seed.
        progress: as in `held_out_margins`.

    Raises:
        StaleError: `out` was made from other pairs, models or options.
    """
    check_encoders(held.cache, held.family)
    check_trained(local_denoiser(policy).parent)
    folder = held.family.folder
    settings = {
        **options.model_dump(exclude={"batch_size"}), "policy": part_digest(local_denoiser(policy)),
        "reference": part_digest(folder / held.family.component if reference is None else local_denoiser(reference)),
        "scheduler": part_digest(folder / SCHEDULER),
    }

    check_timesteps(held.family.path, max(options.timesteps), option="evaluation.held_out.timesteps")

    def measured() -> None:
        if begin(out, stage=STAGE, settings=settings, inputs=held.inputs) is Status.DONE:
            return
        denoisers = (held.family.load_denoiser(policy), held.family.load_denoiser(reference))
        margins = held_out_margins(held, denoisers, options=options, progress=progress).numpy()
        buffer = io.BytesIO()
        np.savez(buffer, margins=margins, timesteps=options.timesteps, prompts=held.pairs.prompt_rows)
        write_atomically(out / FILE, buffer.getvalue())
        finish(out, {"pairs": margins.shape[1], "sha256": hash_file(out / FILE)}, files=[FILE])

    main_first("take the implicit margins", measured)


def read_held_out(out: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(margins of shape (timesteps, pairs), timesteps, number of each pair's prompt) in `out`.

    Raises:
        DataError: they are missing, unfinished or something else.
    """
    stored = np.load(io.BytesIO(Artefact.open(out, stage=STAGE).read(FILE)))
    return stored["margins"], stored["timesteps"], stored["prompts"]


def _predictor(family: Family, denoiser: nn.Module) -> Predict:
    return lambda x_t, timesteps, conditioning: family.predict(denoiser, x_t, timesteps, conditioning)


def _plain(timestep: int) -> TrainingOptions:
    """Options under which a batch is made without any choice: this timestep, nothing dropped, mirrored or sampled."""
    return TrainingOptions(
        steps=1, batch_size=1, optimizer=OptimizerOptions(lr=1.0), caption_dropout=0.0, flips="none", latents="mean",
        min_timestep=timestep, max_timestep=timestep,
    )
