"""Recipes: one strict YAML file plus dotted overrides, resolved to frozen sections.

The seams' sections (`model`, `labels`, `noising`, `objective`, scorers) are mappings with a `name`; they are checked
and completed by the dataclass that the name stands for. An unknown key anywhere is an error with the nearest name.
A recipe may name another as its `base` and say only what differs (`smpo.pipeline.reading`).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import Field, ValidationError, create_model, model_validator

from smpo.core.checks import check_known, listed
from smpo.core.errors import ConfigError
from smpo.core.names import BASE, check_names
from smpo.core.registry import one_line
from smpo.core.sections import Section
from smpo.data import FORMATS
from smpo.evaluation.options import COLUMNS as IMAGE_COLUMNS
from smpo.labels import LABELS
from smpo.models import FAMILIES
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES, needs_reference_model
from smpo.pipeline.hints import dotted_keys, key_hint, sections_of
from smpo.pipeline.places import with_places_expanded
from smpo.pipeline.reading import parse_override, read_recipe
from smpo.preparation.options import CacheOptions, PairOptions
from smpo.report.published import PublishedNumbers
from smpo.rewards import SCORERS
from smpo.rewards.options import ScoringOptions
from smpo.sampling.options import GenerationOptions
from smpo.training.cached import check_cacheable
from smpo.training.options import ImplicitOptions, TrainingOptions, check_one_copy

SEAMS = {"model": FAMILIES, "labels": LABELS, "noising": NOISINGS, "objective": OBJECTIVES}


def section_of(options: type, name: str, **extra: Any) -> type[Section]:
    """A section with the fields of the dataclass `options` and some more; its `.options` builds the dataclass."""
    hints = get_type_hints(options)
    own = {f.name: (hints[f.name], f.default) for f in dataclasses.fields(options)}

    def build(self: Section) -> Any:
        return options(**{field: getattr(self, field) for field in own})

    def check(self: Section) -> Section:
        build(self)
        return self

    validators = {"check": model_validator(mode="after")(check)}
    section = create_model(name, __base__=Section, __validators__=validators, **own, **extra)
    section.options = property(build)
    return section


PROMPT_CHOICES: dict[str, Any] = {  # arguments of `smpo.prompts.read_prompts`
    "limit": (int | None, Field(None, gt=0, description="take the first so many prompts")),
    "per_category": (int | None, Field(None, gt=0, description="take the first so many prompts of each category")),
    "unique": (bool, Field(False, description="leave out a prompt that occurred before")),
    "split": (str | None, Field(None, description="of a Hugging Face dataset of prompts")),
}
PROMPTS = "prompts, or their file, files, folder or dataset"
SamplingSection = section_of(
    GenerationOptions, "SamplingSection", prompts=(tuple[str, ...] | str, Field(description=PROMPTS)), **PROMPT_CHOICES
)
DataSection = section_of(
    PairOptions, "DataSection", source=(str | None, Field(None, description="None is the output of `smpo sample`"))
)
GenerationSection = section_of(
    GenerationOptions, "GenerationSection",
    prompts=(tuple[str, ...] | str, Field((), description=PROMPTS)), **PROMPT_CHOICES,
    models=(dict[str, str], Field(
        {}, description="further models to compare: name -> pipeline; a hub id may end in @revision"
    )),
)


class ScoringSection(ScoringOptions):
    """How the pairs are scored, and by whom besides the recipe's scorer.

    Attributes:
        also: further scorers: name of the table -> scorer.
    """

    also: dict[str, dict[str, Any]] = {}


class HeldOutSection(ImplicitOptions):
    """Artefacts of pairs that no model was trained on; another recipe's pairs, label and cache stages make them.

    Attributes:
        pairs: folder that `smpo pairs` wrote.
        label: folder that `smpo label` wrote.
        cache: folder that `smpo cache` wrote.
    """

    pairs: str
    label: str
    cache: str

    @property
    def implicit(self) -> ImplicitOptions:
        """The options of the measurement alone."""
        return ImplicitOptions(**self.model_dump(include=set(ImplicitOptions.model_fields)))


class EvaluationSection(ScoringOptions):
    """Which scorers judge the images.

    Attributes:
        scorers: name of the column -> scorer.
    """

    scorers: dict[str, dict[str, Any]] = {}
    protocol: Literal["all", "median-image"] = Field(
        "all", description="of several images a prompt: all count, or the one with the median score (Diffusion-KTO)"
    )
    held_out: HeldOutSection | None = Field(None, description="labelled pairs for the implicit preference accuracy")


class ReportSection(Section):
    """What the report shows beside the recipe's own numbers."""

    published: PublishedNumbers | None = Field(None, description="the paper's numbers beside ours")
    browser: bool = Field(True, description="write prompts.html, all prompts with all images")


class PathsSection(Section):
    """Where each artefact lives; None is a folder of that name under `workdir`. Share a cache by naming it here.

    Images and their scores lie in `store`, for all recipes that share it; None is `store` beside a `workdir` that is
    not given, runs/store, and inside one that is.

    Attributes:
        workdir: the folder of the whole run; None is runs/NAME.
        store: images and their scores, shared by recipes.
        sample: pairs that the model generated.
        pairs: the checked pair set.
        score: scores of the pairs.
        label: winners and their probabilities.
        audit: what the audit found.
        cache: latents and prompt embeddings.
        invert: cached inversions.
        train: checkpoints, metrics and the trained model.
        generate: which images of the store belong to which model.
        evaluate: scores and measures of the images.
        report: the report.
    """

    workdir: str | None = None
    store: str | None = None
    sample: str | None = None
    pairs: str | None = None
    score: str | None = None
    label: str | None = None
    audit: str | None = None
    cache: str | None = None
    invert: str | None = None
    train: str | None = None
    generate: str | None = None
    evaluate: str | None = None
    report: str | None = None


class Recipe(Section):
    """A resolved recipe.

    Attributes:
        name: of the run; its artefacts go to runs/NAME.
        seed: of every random draw in training.
        model: the family (`model.name`), its weights and their settings.
        data: the pairs, and which of them are kept.
        labels: who wins a pair, and how surely.
        noising: how an image becomes a noisy latent and a target.
        objective: the loss.
        generation: the images by which models are compared.
    """

    name: str
    seed: int = Field(0, ge=0)
    model: dict[str, Any]
    init_weights: str | None = Field(None, description="start weights of the policy; None is the model's own UNet")
    reference_weights: str | None = Field(None, description="weights of the reference; None is the policy's start")
    sampling: SamplingSection | None = Field(None, description="draw pairs from the model itself")  # type: ignore
    data: DataSection  # type: ignore
    scorer: dict[str, Any] | None = Field(None, description="reward model of the labels")
    scoring: ScoringSection = ScoringSection()
    labels: dict[str, Any]
    noising: dict[str, Any]
    objective: dict[str, Any]
    cache: CacheOptions = CacheOptions()
    training: TrainingOptions
    generation: GenerationSection = GenerationSection()  # type: ignore
    evaluation: EvaluationSection = EvaluationSection()
    report: ReportSection = ReportSection()
    paths: PathsSection = PathsSection()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.training.flips != "none" and not self.cache.flips:
            raise ConfigError(f"training.flips={self.training.flips} needs cache.flips=true, got false")
        if (self.sampling is None) == (self.data.source is None):
            raise ConfigError("give either data.source (existing pairs) or a sampling section (pairs to draw)")
        check_known(self.data.format, ["auto", *FORMATS], what="data.format")
        objective, labels = OBJECTIVES.build(self.objective), LABELS.build(self.labels)
        if labels.is_smoothed and not objective.takes_smoothed_labels:
            raise ConfigError(
                f"objective '{self.objective['name']}' takes hard labels, got labels.name={self.labels['name']}; "
                "set labels.name=hard or objective.name=smpo"
            )
        noising, moves = NOISINGS.build(self.noising), self.training.reference_ema_decay
        if moves is not None and not needs_reference_model(objective, noising):
            raise ConfigError(
                f"training.reference_ema_decay={moves} moves a reference, and objective "
                f"'{self.objective['name']}' has none; set it to null"
            )
        chain_length, size = noising.chain_length, self.training.micro_batch_size
        if size % chain_length:
            raise ConfigError(
                f"training.micro_batch_size must be a multiple of noising.chain_length={chain_length}, for it holds "
                "whole chains; "
                f"got {size}"
            )
        if self.training.cached_inversion_epochs is not None:
            check_cacheable(self.training, objective, noising)
        if self.training.lora is not None:
            check_one_copy(self.init_weights, self.reference_weights)
        if labels.needs_scores and self.scorer is None:
            raise ConfigError(f"labels '{self.labels['name']}' need scores: add a scorer section")
        if self.scorer is not None and (name := SCORERS.named(self.scorer)) in self.scoring.also:
            raise ConfigError(f"scoring.also.{name}: the table of the recipe's scorer has this name; choose another")
        return self

    @model_validator(mode="after")
    def _names_can_be_folders(self) -> "Recipe":
        check_names([self.name], what="name: recipe", reserved=[BASE])
        check_names(self.generation.models, what="generation.models: model", reserved=[BASE, self.name])
        scorers = [] if self.scorer is None else [str(self.scorer.get("name"))]
        check_names(self.scoring.also, what="scoring.also: table", reserved=scorers)
        check_names(self.evaluation.scorers, what="evaluation.scorers: column", reserved=IMAGE_COLUMNS)
        return self

    @property
    def pair_scorers(self) -> dict[str, dict[str, Any]]:
        """Name of the table -> settings of every scorer of the pairs; the labels' comes first, under its own name."""
        return {**({} if self.scorer is None else {self.scorer["name"]: self.scorer}), **self.scoring.also}

    def folder(self, artefact: str) -> Path:
        """Where `artefact` (a field of `paths`) lives."""
        return Path(getattr(self.paths, artefact) or self.workdir / artefact)

    @property
    def store(self) -> Path:
        """The folder of images and scores that recipes share."""
        return Path(self.paths.store or Path(self.paths.workdir or "runs") / "store")

    @property
    def workdir(self) -> Path:
        """The folder of the whole run."""
        return Path(self.paths.workdir or Path("runs") / self.name)


def load_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """The resolved recipe of a YAML file or of a shipped recipe's name, with `a.b=value` overrides applied.

    Raises:
        ConfigError: no such recipe or base, invalid YAML, an unknown key (with the nearest one), a bad or missing
            value.
    """
    content = read_recipe(source)
    for override in overrides:
        _apply(content, override)
    return resolve(content)


def resolve(content: Mapping[str, Any]) -> Recipe:
    """The recipe of a plain mapping, every default filled in; errors as `load_recipe`."""
    try:
        recipe = Recipe.model_validate(with_places_expanded(content))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
    completed = {key: registry.resolved(getattr(recipe, key), section=key) for key, registry in SEAMS.items()}
    if recipe.scorer is not None:
        completed["scorer"] = SCORERS.resolved(recipe.scorer, section="scorer")
    for section, key in (("scoring", "also"), ("evaluation", "scorers")):
        given = getattr(recipe, section)
        scorers = {
            name: SCORERS.resolved(settings, section=f"{section}.{key}.{name}")
            for name, settings in getattr(given, key).items()
        }
        completed[section] = given.model_copy(update={key: scorers})
    resolved = recipe.model_copy(update=completed)
    LABELS.build(resolved.labels).tables(tuple(resolved.pair_scorers))  # a label may name only tables that are made
    _check_numbers(content, resolved.model_dump())
    return resolved


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back to the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=120)


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one `a.b.c=value`. A newly named member keeps only what it shares."""
    path, value = parse_override(override)
    *sections, key = path.split(".")
    node = content
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise ConfigError(f"{path}: '{section}' is a value, not a section")
    if key == "name" and len(sections) == 1 and sections[0] in SEAMS and node.get("name") != value:
        known = _shared_settings(sections[0], node, value)
        node.clear()
        node.update(known)
    node[key] = value


def _shared_settings(section: str, old: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of `old` that the newly named member has too."""
    fields = {field.name for field in dataclasses.fields(SEAMS[section].resolve(name))}
    return {key: value for key, value in old.items() if key in fields}


def _check_numbers(given: Any, resolved: Any, path: str = "") -> None:
    """Raise ConfigError for a number that is none, wherever it stands: inf, nan, or true for one."""
    if isinstance(resolved, Mapping):
        for key, item in resolved.items():
            own = given.get(key) if isinstance(given, Mapping) else None
            _check_numbers(own, item, f"{path}.{key}".strip("."))
    elif isinstance(resolved, list | tuple):
        fitting = given if isinstance(given, list | tuple) and len(given) == len(resolved) else [None] * len(resolved)
        for own, item in zip(fitting, resolved, strict=True):
            _check_numbers(own, item, path)
    elif isinstance(resolved, float) and not math.isfinite(resolved):
        raise ConfigError(f"{path} must be a finite number, got {resolved}")
    elif isinstance(given, bool) and isinstance(resolved, int | float) and not isinstance(resolved, bool):
        raise ConfigError(f"{path} must be a number, got {str(given).lower()}")


def _explain(error: ValidationError) -> str:
    """One line for the first complaint; an unknown key gets the nearest known one, in whatever section."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return one_line(error, section="")
    *sections, key = map(str, first["loc"])
    model: Any = Recipe
    for section in sections:
        field = model.model_fields.get(section)
        model = next(iter(sections_of(field.annotation)), None) if field else None
        if model is None:
            return one_line(error, section="")
    known, path = list(model.model_fields), ".".join([*sections, key])
    return f"{path}: unknown key; known: {listed(known)}.{key_hint(path, known, _all_keys())}"


def _all_keys() -> list[str]:
    """Every dotted key that a recipe may have, the settings of all members of its seams among them."""
    members = (
        f"{seam}.{field.name}" for seam, registry in SEAMS.items() for name in registry
        for field in dataclasses.fields(registry.resolve(name)) if field.init
    )
    return list(dict.fromkeys([*dotted_keys(Recipe), *members, *(f"{seam}.name" for seam in SEAMS)]))
