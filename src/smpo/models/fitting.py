"""Whether the parts of a pipeline folder are those of a family, and fit each other. Only configs are read."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig

from smpo.models import FAMILIES
from smpo.models.configs import KINDS_BY_CHANNELS
from smpo.models.family import Family
from smpo.models.folders import Part
from smpo.models.loading import CONFIG, network_config
from smpo.models.sources import INDEX

LATENT_CHANNELS = 4
TIME_IDS = 6  # of SDXL: original height and width, crop top and left, target height and width
MAX_SAMPLE_SIZE = 1024  # of latents, 8192 px
IGNORED_PARTS = ("safety_checker", "feature_extractor", "image_encoder")
"""A checker would put black images into the statistics; the other two read images that nobody gives."""
OPTIONS = ("requires_safety_checker", "force_zeros_for_empty_prompt", "add_watermarker")
"""Settings of a pipeline, beside its parts. A watermark is never added: it would change the scores."""
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
ANOTHER_BASE = "use another base"


def index_of(folder: Path) -> dict[str, Any]:
    """The content of a pipeline folder's model_index.json; ConfigError where it is no such mapping."""
    index = Part(folder).json(INDEX)
    if not isinstance(index.get("_class_name"), str):
        raise Part(folder).error(f"{INDEX} names no _class_name")
    return index


def family_name(name_of_class: str) -> str | None:
    """The name of the family whose pipelines are of the class called so; None where no family's are."""
    return next((name for name in FAMILIES if FAMILIES.resolve(name).pipeline_class == name_of_class), None)


def scheduler_class(folder: Path) -> str:
    """Name of the scheduler's class, as the folder's model_index.json has it."""
    return index_of(folder)["scheduler"][1]


def checked_configs(folder: Path, family: Family) -> dict[str, dict[str, Any]]:
    """The config of each network of the pipeline in `folder` by its name, complete with defaults.

    Raises:
        ConfigError: the pipeline is of another family, a part is missing or of another class, or two parts do not fit.
    """
    check_index(folder, family)
    networks = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, **family.text_encoders}
    configs = {name: completed(network, Part(folder / name)) for name, network in networks.items()}
    _check_vae(configs["vae"], Part(folder / "vae"), family)
    check_unet(configs["unet"], Part(folder / "unet"), family, configs)
    return configs


def check_index(folder: Path, family: Family) -> None:
    """ConfigError unless the model_index.json in `folder` lists the parts of the family, and no others."""
    part, index = Part(folder), index_of(folder)
    wanted = family.pipeline_class
    if index["_class_name"] != wanted:
        raise _another_family(part, index, wanted)
    encoders = {name: (network.__name__,) for name, network in family.text_encoders.items()}
    needed = {
        "unet": (UNet2DConditionModel.__name__,), "vae": (AutoencoderKL.__name__,), "scheduler": None, **encoders,
        **{name.replace("text_encoder", "tokenizer"): TOKENIZERS for name in encoders},
    }
    for name, classes in needed.items():
        entry = index.get(name)
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)):
            raise part.error(f"{INDEX} names no {name}")
        if classes is not None and entry[1] not in classes:
            raise part.error(f"its {name} is a {entry[1]}, and a {classes[0]} is needed", way_out=ANOTHER_BASE)
        if not (folder / name).is_dir():
            raise part.error(f"{INDEX} names {name}, and there is no such folder")
    for name, entry in index.items():
        if name in (*needed, *IGNORED_PARTS, *OPTIONS) or name.startswith("_") or entry in (None, [None, None]):
            continue
        raise part.error(f"{INDEX}: {name} is no part or setting of {wanted} that is known", way_out=ANOTHER_BASE)


def completed(network: type[nn.Module], part: Part) -> dict[str, Any]:
    """The config of a network with the defaults of its class for what it leaves open."""
    config = network_config(network, part)
    if hasattr(network, "config_class"):
        return {**CLIPTextConfig().to_dict(), **config}
    parameters = inspect.signature(network.__init__).parameters.values()
    return {**{found.name: found.default for found in parameters if found.name != "self"}, **config}


def check_unet(
    config: Mapping[str, Any], part: Part, family: Family, configs: Mapping[str, Mapping[str, Any]]
) -> None:
    """ConfigError unless a UNet with this config denoises the latents, and reads the prompts, of the other parts."""
    entering, leaving, latent = config["in_channels"], config["out_channels"], configs["vae"]["latent_channels"]
    if entering in KINDS_BY_CHANNELS:
        raise part.error(f"it has {entering} input channels, so it is for {KINDS_BY_CHANNELS[entering]}",
                         way_out="use a text-to-image base")
    if not entering == leaving == latent:
        raise part.error(f"it takes {entering} and gives {leaving} channels, and the VAE's latents have {latent}",
                         way_out=ANOTHER_BASE)
    if config["addition_embed_type"] != family.added:
        other = "sd" if family.added else "sdxl"
        raise part.error(
            f"its addition_embed_type is {config['addition_embed_type']!r}, and {family.added!r} is needed",
            way_out=f"if it is one of {other.upper()}, set model.name={other}",
        )
    _check_sample_size(config["sample_size"], part)
    widths = [configs[name]["hidden_size"] for name in family.text_encoders]
    reads = config["cross_attention_dim"]
    if any(width != sum(widths) for width in (reads if isinstance(reads, list) else [reads])):
        given = " + ".join(map(str, widths))
        raise part.error(f"it reads prompts of width {reads}, and the text encoders give {given}", way_out=ANOTHER_BASE)
    if family.added:
        _check_added(config, part, configs)


def _check_added(config: Mapping[str, Any], part: Part, configs: Mapping[str, Mapping[str, Any]]) -> None:
    pooled = configs["text_encoder_2"]["projection_dim"]
    each, whole = config["addition_time_embed_dim"], config["projection_class_embeddings_input_dim"]
    if not isinstance(each, int) or whole != pooled + TIME_IDS * each:
        raise part.error(
            f"projection_class_embeddings_input_dim is {whole}, and the pooled prompt and {TIME_IDS} time ids have "
            f"{pooled} + {TIME_IDS} x {each}", way_out=ANOTHER_BASE
        )


def _check_vae(config: Mapping[str, Any], part: Part, family: Family) -> None:
    pipeline = family.pipeline_class
    channels = config["latent_channels"], config["in_channels"], config["out_channels"]
    if channels != (LATENT_CHANNELS, 3, 3):
        raise part.error(
            f"latent_channels, in_channels and out_channels are {channels}, and ({LATENT_CHANNELS}, 3, 3) is needed",
            way_out=ANOTHER_BASE,
        )
    if family.undoes_statistics and "scaling_factor" not in part.json(CONFIG):
        raise part.error(f"{CONFIG} has no scaling_factor, and the default is that of SD1.x",
                         way_out="set it; SDXL's is 0.13025")
    if config["shift_factor"]:
        raise part.error(f"shift_factor is {config['shift_factor']}, which {pipeline} does not undo when it decodes",
                         way_out=ANOTHER_BASE)
    statistics = [config["latents_mean"], config["latents_std"]]
    neutral = ([None, None], [[0] * LATENT_CHANNELS, [1] * LATENT_CHANNELS])
    if not family.undoes_statistics and statistics not in neutral:
        raise part.error(f"it has latents_mean and latents_std, which {pipeline} does not undo when it decodes",
                         way_out=ANOTHER_BASE)


def _check_sample_size(size: Any, part: Part) -> None:
    sides = size if isinstance(size, list) else [size]
    if len(sides) > 2 or not all(isinstance(side, int) and 1 <= side <= MAX_SAMPLE_SIZE for side in sides):
        raise part.error(f"sample_size is {size}, and must be one or two numbers of at most {MAX_SAMPLE_SIZE}")


def _another_family(part: Part, index: Mapping[str, Any], wanted: str) -> Exception:
    found, other = index["_class_name"], family_name(index["_class_name"])
    if other:
        return part.error(f"it is a {found}, and this recipe's family needs a {wanted}",
                          way_out=f"set model.name={other}")
    if found == "StableDiffusionXLImg2ImgPipeline" and index.get("text_encoder") in (None, [None, None]):
        return part.error(f"it is the SDXL refiner, and a {wanted} is needed", way_out="use the SDXL base")
    known = ", ".join(FAMILIES.resolve(name).pipeline_class for name in FAMILIES)
    return part.error(f"it is a {found}; known: {known}", way_out=ANOTHER_BASE)
