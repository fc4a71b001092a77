"""Recipes: one strict YAML file plus dotted overrides, resolved to frozen sections.

The seams' sections (`model`, `labels`, `noising`, `objective`, scorers) are mappings with a `name`; they are checked
and completed by the dataclass that the name stands for. An unknown key anywhere is an error with the nearest name.
A recipe may name another one as its `base` and contain only its own keys (`smpo.pipeline.reading`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from smpo.core.checks import listed
from smpo.core.cross_checks import ChecksRecipe, NoisingFacts, ObjectiveFacts
from smpo.core.errors import ConfigError
from smpo.core.names import BASE, check_names
from smpo.core.registry import Registry, one_line
from smpo.core.sections import Section
from smpo.evaluation.options import COLUMNS as IMAGE_COLUMNS
from smpo.labels import LABELS
from smpo.labels.label import Label
from smpo.models import FAMILIES
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES
from smpo.pipeline.hints import dotted_keys, key_hint, sections_of
from smpo.pipeline.places import with_places_expanded
from smpo.pipeline.reading import parse_override, read_recipe
from smpo.pipeline.renamed import refuse_old_keys
from smpo.pipeline.sections import (
    DataSection,
    EvaluationSection,
    GenerationSection,
    PathsSection,
    ReportSection,
    SamplingSection,
    ScoringSection,
)
from smpo.preparation.options import CacheOptions
from smpo.rewards import SCORERS
from smpo.training.options import TrainingOptions

SEAMS: dict[str, Registry[Any]] = {"model": FAMILIES, "labels": LABELS, "noising": NOISINGS, "objective": OBJECTIVES}


class Recipe(Section):
    """A resolved recipe.

    Attributes:
        name: name of the run; its artefacts go to runs/NAME.
        seed: of all random numbers of the training.
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
    sampling: SamplingSection | None = Field(None, description="generate pairs with the model itself")
    data: DataSection
    scorer: dict[str, Any] | None = Field(None, description="reward model of the labels")
    scoring: ScoringSection = ScoringSection()
    labels: dict[str, Any]
    noising: dict[str, Any]
    objective: dict[str, Any]
    cache: CacheOptions = CacheOptions()
    training: TrainingOptions
    generation: GenerationSection = GenerationSection()
    evaluation: EvaluationSection = EvaluationSection()
    report: ReportSection = ReportSection()
    paths: PathsSection = PathsSection()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        """Exactly one source of pairs; then each part checks what it needs of the others."""
        if (self.sampling is None) == (self.data.source is None):
            raise ConfigError("give either data.source (existing pairs) or a sampling section (pairs to generate)")
        parts = BuiltParts.of(self)
        for part in (self.training, parts.labels, parts.noising, parts.objective, self.scoring):
            if isinstance(part, ChecksRecipe):
                part.check_recipe(parts)
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


@dataclass(frozen=True)
class BuiltParts:
    """What the parts of a recipe see of each other: see `cross_checks.RecipeParts`."""

    names: Mapping[str, str]
    labels: Label
    noising: NoisingFacts
    objective: ObjectiveFacts
    cached_flips: bool
    init_weights: str | None
    reference_weights: str | None

    @classmethod
    def of(cls, recipe: Recipe) -> "BuiltParts":
        """The parts of `recipe`; ConfigError where a member or a setting of it is unknown or bad."""
        objective, labels = OBJECTIVES.build(recipe.objective), LABELS.build(recipe.labels)
        noising = NOISINGS.build(recipe.noising)
        names = {seam: str(getattr(recipe, seam)["name"]) for seam in ("labels", "noising", "objective")}
        if recipe.scorer is not None:
            names["scorer"] = SCORERS.named(recipe.scorer)
        return cls(
            names, labels, noising, objective, recipe.cache.flips, recipe.init_weights,
            recipe.reference_weights,
        )


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
    refuse_old_keys(content)
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


def settings_text(settings: dict[str, Any]) -> str:
    """A seam's member with its settings in brackets: "dpo (beta=2000.0)"."""
    rest = ", ".join(f"{key}={value}" for key, value in settings.items() if key != "name" and value is not None)
    return f"{settings['name']} ({rest})" if rest else settings["name"]


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one `a.b.c=value`. If it names another member, only the settings that both members have are kept."""
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
    fields = SEAMS[section].fields(name)
    return {key: value for key, value in old.items() if key in fields}


def _check_numbers(given: Any, resolved: Any, path: str = "") -> None:
    """Raise ConfigError for inf, nan, or a boolean in place of a number, anywhere in the recipe."""
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
    model: type[BaseModel] = Recipe
    for section in sections:
        field = model.model_fields.get(section)
        deeper = sections_of(field.annotation) if field else []
        if not deeper:
            return one_line(error, section="")
        model = deeper[0]
    known, path = list(model.model_fields), ".".join([*sections, key])
    return f"{path}: unknown key; known: {listed(known)}.{key_hint(path, known, _all_keys())}"


def _all_keys() -> list[str]:
    """Every dotted key that a recipe may have, the settings of all members of its seams among them."""
    members = (
        f"{seam}.{field}" for seam, registry in SEAMS.items() for name in registry for field in registry.fields(name)
    )
    return list(dict.fromkeys([*dotted_keys(Recipe), *members, *(f"{seam}.name" for seam in SEAMS)]))
