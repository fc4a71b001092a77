"""The sections of a recipe that stand for no single stage's options. Imports no torch."""

from typing import Any, Literal

from pydantic import Field

from smpo.core.cross_checks import RecipeParts
from smpo.core.errors import ConfigError
from smpo.core.sections import Section, only
from smpo.preparation.options import PairOptions
from smpo.report.published import PublishedNumbers
from smpo.rewards.options import ScoringOptions
from smpo.sampling.options import GenerationOptions
from smpo.training.options import ImplicitOptions

Scorers = dict[str, dict[str, Any]]
"""Name of a table or column -> settings of a scorer."""
PROMPTS = "prompts, or their file, files, folder or dataset"


class PromptedOptions(GenerationOptions):
    """How images are generated, and for which prompts."""

    prompts: tuple[str, ...] | str = Field((), description=PROMPTS)
    limit: int | None = Field(None, gt=0, description="take the first so many prompts")
    per_category: int | None = Field(None, gt=0, description="take the first so many prompts of each category")
    unique: bool = Field(False, description="leave out a prompt that occurred before")
    split: str | None = Field(None, description="of a Hugging Face dataset of prompts")

    @property
    def choices(self) -> dict[str, Any]:
        """Which of the prompts are taken: arguments of `smpo.prompts.read_prompts`."""
        return {name: getattr(self, name) for name in ("limit", "per_category", "unique", "split")}

    @property
    def options(self) -> GenerationOptions:
        """How the images are generated."""
        return only(GenerationOptions, self)


class SamplingSection(PromptedOptions):
    """Pairs that the model itself generates."""

    prompts: tuple[str, ...] | str = Field(description=PROMPTS)


class GenerationSection(PromptedOptions):
    """The images by which models are compared."""

    models: dict[str, str] = Field(
        {}, description="further models to compare: name -> pipeline; a hub id may end in @revision"
    )


class DataSection(PairOptions):
    """The pairs, and which of them are kept."""

    source: str | None = Field(None, description="None is the output of `smpo sample`")

    @property
    def options(self) -> PairOptions:
        """Which pairs are kept."""
        return only(PairOptions, self)


class ScoringSection(ScoringOptions):
    """How the pairs are scored, and by which scorers besides the recipe's.

    Attributes:
        also: further scorers: name of the table -> scorer.
    """

    also: Scorers = {}

    def check_recipe(self, recipe: RecipeParts) -> None:
        """Raise ConfigError where a table would have the name of that of the recipe's scorer."""
        name = recipe.names.get("scorer")
        if name in self.also:
            raise ConfigError(f"scoring.also.{name}: the table of the recipe's scorer has this name; choose another")


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
        return only(ImplicitOptions, self)


class EvaluationSection(ScoringOptions):
    """Which scorers judge the images.

    Attributes:
        scorers: name of the column -> scorer.
    """

    scorers: Scorers = {}
    protocol: Literal["all", "median-image"] = Field(
        "all", description="of several images a prompt: all count, or the one with the median score (Diffusion-KTO)"
    )
    held_out: HeldOutSection | None = Field(None, description="labelled pairs for the implicit preference accuracy")


class ReportSection(Section):
    """What the report shows beside the recipe's own numbers."""

    published: PublishedNumbers | None = Field(None, description="the paper's numbers beside the recipe's")
    browser: bool = Field(True, description="write prompts.html, all prompts with all images")


class PathsSection(Section):
    """Where each artefact is; None is a folder of that name under `workdir`. Share a cache by naming it here.

    Images and their scores are in `store`, for all recipes that share it; None is `store` beside a `workdir` that is
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
