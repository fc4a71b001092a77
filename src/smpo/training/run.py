"""What a training run is made of, and where it keeps its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smpo.models.part_digests import DENOISER, SCHEDULER, part_digest
from smpo.models.sd import StableDiffusion
from smpo.models.sources import local_denoiser
from smpo.preparation.cache import MODEL, LatentCache
from smpo.training.batches import TrainingPairs
from smpo.training.cached import CachedInversions
from smpo.training.options import TrainingOptions
from smpo.training.order import ExampleOrder

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Run:
    """A training run, resolved.

    Attributes:
        name: of the recipe.
        folder: where all of the run's files live.
        seed: of order, noise and every other draw.
        family: the model family with its source.
        init_weights: start weights of the policy; None is the family's own UNet.
        reference_weights: weights of the reference; None is the policy's start.
        noising: a member of seam 2.
        objective: a member of seam 3.
        options: the training section.
        pairs: labelled pairs.
        cache: their latents and prompts.
        inputs: fingerprints of the artefacts read.
        settings: the resolved sections that decide the result, for the manifest.
        recipe_yaml: the whole resolved recipe, saved beside the result.
        stored: its examples, where they were noised before training.
    """

    name: str
    folder: Path
    seed: int
    family: StableDiffusion
    init_weights: str | None
    reference_weights: str | None
    noising: Any
    objective: Any
    options: TrainingOptions
    pairs: TrainingPairs
    cache: LatentCache
    inputs: dict[str, str]
    settings: dict[str, Any]
    recipe_yaml: str
    stored: CachedInversions | None = None

    @property
    def order(self) -> ExampleOrder:
        """How the pairs are visited."""
        return order_of(self.seed, self.noising, self.objective, self.options)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def metrics_path(self) -> Path:
        """One JSON object an optimizer step."""
        return self.folder / METRICS

    @property
    def model_folder(self) -> Path:
        """The result: a diffusers pipeline."""
        return self.folder / "model"

    @property
    def single_file(self) -> Path:
        """The result as one file, where the recipe wants it."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def lora_folder(self) -> Path:
        """The adapters of a LoRA run."""
        return self.folder / "lora"


def model_inputs(run: Run) -> dict[str, str]:
    """Digests of the parts of the model that the run trains with, now: start, reference and scheduler.

    By content (see `smpo.models.part_digests`): another name or place of the same weights is the same.
    """
    folder = run.family.folder
    start, reference = (
        part_digest(folder / DENOISER if source is None else local_denoiser(source))
        for source in (run.init_weights, run.reference_weights or run.init_weights)
    )
    return {
        f"{MODEL}{DENOISER}": start, f"{MODEL}reference": reference,
        f"{MODEL}{SCHEDULER}": part_digest(folder / SCHEDULER),
    }


def order_of(seed: int, noising: Any, objective: Any, options: TrainingOptions) -> ExampleOrder:
    """How a run of these parts examples its pairs."""
    return ExampleOrder(
        seed, objective.winner_share, chain_length=noising.chain_length, reuse_epochs=options.cached_inversion_epochs
    )


@dataclass(frozen=True)
class TrainReport:
    """What a call of `train` did. `seconds` counts this call alone."""

    steps: int
    resumed_from: int
    seconds: float
    skipped: bool
