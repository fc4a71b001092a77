"""Recipes: one strict YAML file plus dotted overrides, resolved to frozen sections.

The seams' sections (`model`, `labels`, `noising`, `objective`, scorers) are mappings with a `name`; they are checked
and completed by the dataclass that the name stands for. An unknown key anywhere is an error with the nearest name.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from smpo.checks import did_you_mean
from smpo.errors import ConfigError
from smpo.labels import LABELS
from smpo.models import FAMILIES
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES
from smpo.registry import one_line
from smpo.rewards import SCORERS

SEAMS = {"model": FAMILIES, "labels": LABELS, "noising": NOISINGS, "objective": OBJECTIVES}


class Section(BaseModel):
    """A frozen part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(Section):
    """Where the pairs come from and which are kept."""

    source: str = Field(description="pair set: parquet shards, HF dataset, jsonl, or win/lose folders")
    format: str = "auto"
    split: str | None = None
    labelled: bool = Field(True, description="whether a human label is required")
    drop_human_ties: bool = True
    max_dropped_fraction: float = Field(0.1, ge=0, le=1)


class CacheSection(Section):
    """What is stored of each image: posterior moments of its crops, with and without flip."""

    resolution: int = Field(512, gt=0, description="px; shorter side, then a square crop")
    crop: Literal["center", "random"] = "center"
    crops: int = Field(1, gt=0, description="random crops stored of each image")
    flips: bool = Field(True, description="store the mirrored image too")
    sizes: Literal["constant", "real"] = Field("constant", description="SDXL's size conditioning")
    empty_prompt: Literal["encode", "zeros"] = "encode"
    dtype: Literal["float32", "float16"] = "float32"
    vae_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(8, gt=0)


class OptimizerSection(Section):
    """AdamW or Adafactor, with the field's constants."""

    name: Literal["adamw", "adafactor"] = "adamw"
    lr: float = Field(gt=0, description="the effective learning rate: nothing is multiplied into it")
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    warmup_steps: int = Field(0, ge=0, description="optimizer steps of linear warm-up")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: float | None = Field(1.0, gt=0)


class SamplesSection(Section):
    """The grid of fixed prompts drawn during training."""

    every: int = Field(0, ge=0, description="optimizer steps; 0 is never")
    prompts: tuple[str, ...] = ()


class TrainingSection(Section):
    """The run. Batch sizes are in pairs."""

    steps: int = Field(gt=0, description="optimizer steps")
    batch_size: int = Field(gt=0, description="pairs an optimizer step, over all processes")
    micro_batch_size: int = Field(1, gt=0, description="pairs a forward, on each process")
    optimizer: OptimizerSection
    caption_dropout: float = Field(0.2, ge=0, le=1)
    flips: Literal["none", "shared", "independent"] = "independent"
    latents: Literal["sample", "mean"] = "sample"
    min_timestep: int = Field(1, ge=1)
    max_timestep: int = Field(999, le=999)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    ema_decay: float | None = Field(None, gt=0, lt=1)
    checkpoint_every: int = Field(50, gt=0)
    keep_checkpoints: int = Field(2, gt=0)
    log_every: int = Field(1, gt=0)
    trackers: tuple[str, ...] = ("tensorboard",)
    samples: SamplesSection = SamplesSection()


class GenerationSection(Section):
    """Images of the base and the trained model, same prompts and seeds."""

    prompts: tuple[str, ...] | str = Field((), description="prompts, or a file of them")
    num_inference_steps: int = Field(50, gt=0)
    guidance_scale: float = 7.5
    seed: int = 0
    images_per_prompt: int = Field(1, gt=0)
    batch_size: int = Field(8, gt=0)
    models: dict[str, str] = Field({}, description="further models to compare: name -> pipeline")


class EvaluationSection(Section):
    """Which scorers judge the images."""

    scorers: dict[str, dict[str, Any]] = {}
    batch_size: int = Field(32, gt=0)


class PathsSection(Section):
    """Where each artefact lives; None is a folder of that name under `workdir`. Share a cache by naming it here."""

    workdir: str | None = None
    pairs: str | None = None
    score: str | None = None
    label: str | None = None
    cache: str | None = None
    train: str | None = None
    images: str | None = None
    evaluation: str | None = None
    report: str | None = None


class Recipe(Section):
    """A resolved recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = Field(0, ge=0)
    model: dict[str, Any]
    init_unet: str | None = Field(None, description="start weights of the policy; None is the model's own UNet")
    ref_unet: str | None = Field(None, description="weights of the reference; None is the policy's start")
    data: DataSection
    scorer: dict[str, Any] | None = Field(None, description="reward model of the labels")
    score_batch_size: int = Field(32, gt=0)
    labels: dict[str, Any]
    noising: dict[str, Any]
    objective: dict[str, Any]
    cache: CacheSection = CacheSection()
    training: TrainingSection
    generation: GenerationSection = GenerationSection()
    evaluation: EvaluationSection = EvaluationSection()
    paths: PathsSection = PathsSection()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        training = self.training
        if training.min_timestep > training.max_timestep:
            raise ConfigError(f"training.min_timestep {training.min_timestep} exceeds max {training.max_timestep}")
        if training.flips != "none" and not self.cache.flips:
            raise ConfigError(f"training.flips={training.flips} needs cache.flips=true, got false")
        if training.batch_size % training.micro_batch_size:
            raise ConfigError(
                f"training.batch_size {training.batch_size} must be a multiple of micro_batch_size "
                f"{training.micro_batch_size}; choose a divisor"
            )
        objective = OBJECTIVES.build(self.objective)
        if self.labels["name"] != "hard" and not objective.takes_smoothed_labels:
            raise ConfigError(
                f"objective '{self.objective['name']}' takes hard labels, got labels.name={self.labels['name']}; "
                "set labels.name=hard or objective.name=smpo"
            )
        if LABELS.build(self.labels).needs_scores and self.scorer is None:
            raise ConfigError("scorer: required by labels that use rewards, but missing")
        return self

    def folder(self, artefact: str) -> Path:
        """Where `artefact` (a field of `paths`) lives."""
        return Path(getattr(self.paths, artefact) or self.workdir / artefact)

    @property
    def workdir(self) -> Path:
        """The folder of the whole run."""
        return Path(self.paths.workdir or Path("runs") / self.name)


def load_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """The resolved recipe of a YAML file or of a shipped recipe's name, with `a.b=value` overrides applied.

    Raises:
        ConfigError: no such recipe, invalid YAML, an unknown key (with the nearest one), a bad or missing value.
    """
    content = _parse(recipe_path(source).read_text(), where=source)
    for override in overrides:
        _apply(content, override)
    return resolve(content)


def resolve(content: Mapping[str, Any]) -> Recipe:
    """The recipe of a plain mapping, every default filled in; errors as `load_recipe`."""
    try:
        recipe = Recipe.model_validate(dict(content))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
    completed = {key: registry.resolved(getattr(recipe, key)) for key, registry in SEAMS.items()}
    if recipe.scorer is not None:
        completed["scorer"] = SCORERS.resolved(recipe.scorer)
    scorers = {name: SCORERS.resolved(settings) for name, settings in recipe.evaluation.scorers.items()}
    evaluation = recipe.evaluation.model_copy(update={"scorers": scorers})
    return recipe.model_copy(update={**completed, "evaluation": evaluation})


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back to the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=120)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _shipped().rglob("*.yaml"))


def recipe_path(source: str) -> Path:
    """The file of a recipe given as a path or as a shipped name."""
    if Path(source).is_file():
        return Path(source)
    for path in _shipped().rglob("*.yaml"):
        if path.stem == source:
            return path
    known = shipped_recipes()
    hint = did_you_mean(source, known)
    raise ConfigError(f"no recipe file and no shipped recipe '{source}'; shipped: {', '.join(known)}.{hint}")


def _shipped() -> Path:
    return Path(str(files("smpo.recipes")))


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-5 is a number, as everywhere else, and not a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parse(text: str, *, where: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506  _Loader is a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: a recipe must be a mapping of sections, got {type(content).__name__}")
    return content


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one `a.b.c=value`; the value is read as YAML. Naming another member of a seam drops the old one's settings."""
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"override must look like section.key=value, got '{override}'")
    *sections, key = path.split(".")
    node = content
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise ConfigError(f"{path}: '{section}' is a value, not a section")
    parsed = yaml.load(value, Loader=_Loader)
    if key == "name" and len(sections) == 1 and sections[0] in SEAMS and node.get("name") != parsed:
        known = _shared_settings(sections[0], node, parsed)
        node.clear()
        node.update(known)
    node[key] = parsed


def _shared_settings(section: str, old: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of `old` that the newly named member has too."""
    member = SEAMS[section].resolve(name)
    return {key: value for key, value in old.items() if key in member.__dataclass_fields__}


def _explain(error: ValidationError) -> str:
    """One line for the first complaint; an unknown key gets the nearest known one."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return one_line(error, section="")
    *sections, key = map(str, first["loc"])
    model: Any = Recipe
    for section in sections:
        model = model.model_fields[section].annotation
    known = list(model.model_fields)
    return f"{'.'.join([*sections, key])}: unknown key; known: {', '.join(known)}.{did_you_mean(key, known)}"
