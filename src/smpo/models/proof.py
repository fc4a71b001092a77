"""Everything about a model that can be known before work begins, proven in one call and in little memory.

Each weight is read once and let go again: no network is held, and the pipeline that will be saved is put together from
networks without storage. On those a sampling step is rehearsed, which finds configs that load and cannot run.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from torch import nn

from smpo.models.family import Family
from smpo.models.folders import Part
from smpo.models.loading import prove_network
from smpo.models.schedules import check_timesteps
from smpo.models.sources import local_denoiser

META = torch.device("meta")


def prove_pipeline(family: Family, unets: Iterable[str | None] = (None,)) -> None:
    """Prove all parts of `family`'s pipeline, and every UNet of `unets` in it.

    Proven: every weight (see `loading`), the tokenizers, the scheduler, that all fit each other, that the pipeline can
    be put together from them, and that a step of sampling runs on their shapes. What this process has proven before is
    not read again, unless a file has another size, time or inode than it had.

    Args:
        family: with its source.
        unets: sources of UNets that stand in the pipeline in turn; None is the family's own.

    Raises:
        ConfigError: one line, which names the part, its folder, the reason and the way out.
    """
    chosen = tuple(dict.fromkeys([None, *unets]))
    places = {family.folder, *(local_denoiser(source) for source in chosen if source is not None)}
    _prove_once(family, chosen, tuple(state for place in sorted(places) for state in _states(place)))


def prove_training(family: Family, unets: Iterable[str | None], *, max_timestep: int) -> None:
    """`prove_pipeline`, and that training can follow the schedule up to timestep `max_timestep`.

    Raises:
        ConfigError: as there; a schedule that is not supported, or has fewer timesteps.
    """
    check_timesteps(family.path, max_timestep)
    prove_pipeline(family, unets)


@functools.lru_cache(maxsize=16)
def _prove_once(family: Family, unets: tuple[str | None, ...], states: tuple[Any, ...]) -> None:
    family = family.reread()
    networks = {name: prove_network(kind, family.part(name)) for name, kind in _frozen(family).items()}
    for source in unets:
        part = family.denoiser_part(source)
        unet = prove_network(UNet2DConditionModel, part)
        pipeline = _assembled(family, {"unet": unet, **networks}, part)
        _rehearse(family, pipeline, part)


def _states(folder: Path) -> Iterator[tuple[Any, ...]]:
    """What changes with the content of a file, for all files below `folder`."""
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):  # a link to nothing: who needs it says so
            found = path.stat()
            yield str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _frozen(family: Family) -> Mapping[str, type[nn.Module]]:
    """The networks beside the UNet: folder -> class. The folder as a whole is looked at first."""
    assert family.configs
    return {"vae": AutoencoderKL, **family.text_encoders}


def _assembled(family: Family, networks: Mapping[str, nn.Module], part: Part) -> DiffusionPipeline:
    try:
        return family.assemble(networks)
    except (TypeError, AttributeError, KeyError) as error:  # what a pipeline's constructor raises over a config
        raise part.error(f"no {family.pipeline_class} can be made of the parts: {error}") from error


@torch.no_grad()
def _rehearse(family: Family, pipeline: Any, part: Part) -> None:
    """Encode a prompt, predict noise and decode, on shapes alone; ConfigError names what does not run."""
    stage, folder = "", part.folder.parent
    try:
        stage = "text encoders"
        encoded = family.encode_with(
            [(pipeline.components[name.replace("text_encoder", "tokenizer")], pipeline.components[name])
             for name in family.text_encoders], ["a"], META
        )
        stage = "unet"
        side = pipeline.unet.config.sample_size
        height, width = side if isinstance(side, list | tuple) else (side, side)
        latents = torch.empty(1, pipeline.unet.config.in_channels, height, width, device=META)
        given = family.condition(encoded, torch.zeros(1, 6, device=META))
        noise = family.predict(pipeline.unet, latents, torch.zeros(1, dtype=torch.long), given)
        stage = "vae"
        image = pipeline.vae.decode(noise).sample
        if noise.shape != latents.shape or pipeline.vae.encode(image).latent_dist.mean.shape != latents.shape:
            raise ValueError(f"it makes {list(noise.shape)} of latents {list(latents.shape)}")
    except Exception as error:  # whatever a library's module raises on a config that no module should have
        raise Part(folder / stage).error(f"a step of sampling fails in it: {error or type(error).__name__}") from error
