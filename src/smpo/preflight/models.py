"""Probes of the models: base, further weights, adapters, models to compare, scorers."""

from collections.abc import Iterator
from typing import Any

from PIL import Image

from smpo.core.errors import ConfigError
from smpo.cost.architecture import architecture_of
from smpo.models import FAMILIES
from smpo.models.proof import prove_pipeline
from smpo.models.sources import local_pipeline
from smpo.pipeline.config import Recipe
from smpo.pipeline.stages import prompts_of
from smpo.preflight.findings import Note
from smpo.rewards import SCORERS
from smpo.rewards.scorer import Scorer
from smpo.sampling.pipelines import family_in
from smpo.training.policy.lora import add_adapters, trained_parameters

GREY = Image.new("RGB", (64, 64), (128, 128, 128))


def base(recipe: Recipe) -> Iterator[Note]:
    """Check that the base has all weights, and that every other denoiser of the recipe fits its pipeline."""
    denoisers = [source for source in (recipe.init_weights, recipe.reference_weights) if source is not None]
    prove_pipeline(FAMILIES.build(recipe.model), denoisers)
    yield Note(", ".join([recipe.model["source"], *denoisers]))


def compared(recipe: Recipe) -> Iterator[Note]:
    """Check that the models to compare with have all weights."""
    for name, source in recipe.generation.models.items():
        prove_pipeline(family_in(local_pipeline(source)))
        yield Note(f"{name}: {source}")


def adapters(recipe: Recipe) -> Iterator[Note]:
    """Check that the denoiser has the modules that get LoRA adapters."""
    options = recipe.training.lora
    if options is not None:
        denoiser = architecture_of(recipe.model).unet()
        add_adapters(denoiser, options, seed=0)
        count = sum(parameter.numel() for parameter in trained_parameters(denoiser))
        yield Note(f"LoRA of rank {options.rank}, {count:,} parameters")


def timesteps(recipe: Recipe) -> Iterator[Note]:
    """Check that training and generation use timesteps that the model has."""
    levels, options = FAMILIES.build(recipe.model).path.num_levels, recipe.training
    if options.max_timestep >= levels:
        raise ConfigError(
            f"training.max_timestep must be < {levels}, the model's number of timesteps, got {options.max_timestep}"
        )
    sections = {"sampling": recipe.sampling, "training.samples": options.samples, "generation": recipe.generation}
    for name, section in sections.items():
        if section is not None and (section.num_inference_steps or 0) > levels:
            raise ConfigError(
                f"{name}.num_inference_steps must be <= {levels}, the model's number of timesteps, "
                f"got {section.num_inference_steps}"
            )
    yield Note(f"{options.min_timestep} to {options.max_timestep} of {levels}")


def scorers(recipe: Recipe) -> Iterator[Note]:
    """Check that every scorer loads and scores an image."""
    prompt = _any_prompt(recipe)
    distinct: list[tuple[str, dict[str, Any]]] = []
    for name, settings in (*recipe.pair_scorers.items(), *recipe.evaluation.scorers.items()):
        if settings not in [known for _, known in distinct]:
            distinct.append((name, settings))
    for name, settings in distinct:
        scorer: Scorer = SCORERS.build(settings)
        score = scorer([GREY], [prompt]).item()
        yield Note(f"{name} gives a grey image {score:.4g}")


def _any_prompt(recipe: Recipe) -> str:
    section = recipe.sampling or recipe.generation
    return prompts_of(section)[0].text if section.prompts else "a photo"
