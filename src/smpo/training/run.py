"""What a training run is made of, and where it keeps its files."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smpo.models.family import Family
from smpo.models.part_digests import SCHEDULER, part_digest
from smpo.models.sources import local_denoiser
from smpo.preparation.cache import MODEL
from smpo.training.learners.learner import Learner
from smpo.training.options import TrainingOptions
from smpo.training.sources.source import BatchSource

METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class Run(ABC):
    """A training run, resolved: what the trainer is given.

    Attributes:
        name: of the recipe.
        folder: where all of the run's files live.
        seed: of order, noise and every other draw.
        family: the model family with its source.
        init_weights: start weights of the policy; None is the family's own denoiser.
        reference_weights: weights of the reference; None is the policy's start.
        options: the training section.
        inputs: fingerprints of the artefacts read.
        settings: the resolved sections that decide the result, for the manifest.
        recipe_yaml: the whole resolved recipe, saved beside the result.
    """

    name: str
    folder: Path
    seed: int
    family: Family
    init_weights: str | None
    reference_weights: str | None
    options: TrainingOptions
    inputs: dict[str, str]
    settings: dict[str, Any]
    recipe_yaml: str

    @property
    @abstractmethod
    def source(self) -> BatchSource:
        """Where its batches come from."""

    @property
    @abstractmethod
    def learner(self) -> Learner:
        """What it computes of them."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """What a batch counts, in the plural: "pairs"."""

    @abstractmethod
    def check_inputs(self) -> None:
        """Raise StaleError where what is read was made with another model than the run's."""

    @property
    @abstractmethod
    def results(self) -> dict[str, int]:
        """What its manifest says of the data that a finished run has seen."""

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
    folder, component = run.family.folder, run.family.component
    start, reference = (
        part_digest(folder / component if source is None else local_denoiser(source))
        for source in (run.init_weights, run.reference_weights or run.init_weights)
    )
    return {
        f"{MODEL}{component}": start, f"{MODEL}reference": reference,
        f"{MODEL}{SCHEDULER}": part_digest(folder / SCHEDULER),
    }


@dataclass(frozen=True)
class TrainReport:
    """What a call of `train` did. `seconds` counts this call alone."""

    steps: int
    resumed_from: int
    seconds: float
    skipped: bool
