"""Recognising and loading the pipeline in a folder."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from smpo.core.errors import ConfigError
from smpo.core.processes import local_device
from smpo.models import FAMILIES
from smpo.models.fitting import family_name, index_of
from smpo.models.folders import Part
from smpo.models.sources import local_pipeline
from smpo.sampling.options import GenerationOptions


def pipeline_class(folder: Path) -> type:
    """The class of the pipeline in `folder`; ConfigError where it belongs to no family."""
    return getattr(diffusers, family_in(folder).pipeline_class)


def load_pipeline(model: str, options: GenerationOptions) -> DiffusionPipeline:
    """The pipeline of `model` on its device, with its own scheduler, without safety checker and watermark.

    Its parts are loaded and checked by `smpo.models.loading`.

    Raises:
        ConfigError: the model belongs to no family, or has fewer timesteps than `options` has inference steps.
    """
    family = family_in(local_pipeline(model))
    pipeline = family.pipeline(dtype=getattr(torch, options.dtype))
    levels = pipeline.scheduler.config.num_train_timesteps
    if (options.num_inference_steps or 0) > levels:
        raise ConfigError(
            f"num_inference_steps must be <= {levels}, the number of timesteps of {model}, "
            f"got {options.num_inference_steps}"
        )
    return pipeline.to(local_device() if options.device == "auto" else options.device)


def family_in(folder: Path) -> Any:
    """The family of the pipeline in `folder`; ConfigError where it belongs to none."""
    class_name = index_of(folder)["_class_name"]
    name = family_name(class_name)
    if name is None:
        known = ", ".join(FAMILIES.resolve(name).pipeline_class for name in FAMILIES)
        raise Part(folder).error(f"it is a {class_name}; known: {known}", way_out="use another model")
    return FAMILIES.build({"name": name, "source": str(folder)})
