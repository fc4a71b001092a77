"""Values in the configs of networks that are impossible, or that ask for what we do not do: refused by name."""

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from diffusers import AutoencoderKL, UNet2DConditionModel

from smpo.models.folders import Part

MAX_SIZE = 2**24  # of any integer: real vocabularies have 49,408 rows, real layers 10,240 channels
MAX_DEPTH = 100  # of anything that counts layers or blocks: a config of 10^9 layers would be built for ever
DEPTHS = ("layers_per_block", "transformer_layers_per_block", "reverse_transformer_layers_per_block",
          "num_hidden_layers")
POSITIVE = ("norm_eps", "layer_norm_eps", "mid_block_scale_factor", "resnet_out_scale_factor", "norm_num_groups",
            "attention_head_dim", "num_attention_heads", "block_out_channels", "vocab_size", "max_position_embeddings",
            *DEPTHS)
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # of a text encoder: old ones hold -1 and worse
FROM_MOVING_AVERAGE = ("decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step",
                       "use_ema_warmup", "foreach", "ema_decay")
"""Keys that diffusers' EMAModel leaves in the config of a UNet that it saved: they say how it was averaged."""
UNET_MUST_BE_UNSET = {
    "class_embed_type": "a class label", "num_class_embeds": "a class label",
    "encoder_hid_dim_type": "another embedding of the prompt", "encoder_hid_dim": "another embedding of the prompt",
    "time_cond_proj_dim": "a guidance scale (LCM and other guidance-distilled models)",
}
"""Keys of a UNet's config that make it need more than latents, timestep and prompt -> what it needs."""
KINDS_BY_CHANNELS = {5: "depth-to-image", 7: "upscaling", 8: "InstructPix2Pix or image-to-image", 9: "inpainting"}


def check_sizes(config: Mapping[str, Any], part: Part) -> None:
    """ConfigError for a number that no network has: negative, huge, zero where something is counted or divided by."""
    for key, value in config.items():
        if key.startswith("_") or key in TOKEN_IDS:
            continue
        if isinstance(value, list) and len(value) > MAX_DEPTH:
            raise part.error(f"config.json: {key} has {len(value)} entries")
        limit = MAX_DEPTH if key in DEPTHS else MAX_SIZE
        for number in _leaves(value):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if not 0 <= number <= limit or (number == 0 and key in POSITIVE):
                at_least = "greater than 0" if key in POSITIVE else "0 or more"
                raise part.error(f"config.json: {key} is {number}, and must be {at_least} and at most {limit}")


def check_unet_config(config: Mapping[str, Any], part: Part) -> None:
    """ConfigError for a config of another class, or of a UNet that takes more than latents, timestep and prompt."""
    _check_class(config, UNet2DConditionModel, part, ignored=FROM_MOVING_AVERAGE)
    for key, needs in UNET_MUST_BE_UNSET.items():
        if config.get(key) is not None:
            raise part.error(
                f"config.json: {key} is {config[key]!r}: this UNet is also given {needs}", way_out="use another base"
            )
    if config.get("addition_embed_type") not in (None, "text_time"):
        raise part.error(
            f"config.json: addition_embed_type is {config['addition_embed_type']!r}; known: null, text_time",
            way_out="use another base",
        )
    for key, neutral in {"attention_type": "default", "dual_cross_attention": False}.items():
        if config.get(key, neutral) != neutral:
            raise part.error(f"config.json: {key} is {config[key]!r}, and only {neutral!r} is supported",
                             way_out="use another base")


def check_vae_config(config: Mapping[str, Any], part: Part) -> None:
    """ConfigError for a config of another class, or latents that cannot be scaled as it says."""
    _check_class(config, AutoencoderKL, part)
    channels = config.get("latent_channels", 4)
    scale = config.get("scaling_factor", 1.0)
    if not isinstance(scale, int | float) or scale <= 0:
        raise part.error(f"config.json: scaling_factor is {scale!r}, and must be a number > 0")
    for key in ("latents_mean", "latents_std"):
        values = config.get(key)
        if values is None:
            continue
        if not isinstance(values, list) or len(values) != channels:
            raise part.error(f"config.json: {key} is {values!r}, and must have {channels} numbers, one a channel")
        if key == "latents_std" and min(values) <= 0:
            raise part.error(f"config.json: latents_std is {values}, and must be > 0")
    if (config.get("latents_mean") is None) != (config.get("latents_std") is None):
        raise part.error("config.json: of latents_mean and latents_std one is set, and only both can be undone")


def check_text_config(config: Mapping[str, Any], part: Part) -> None:
    """ConfigError for a text encoder that is no CLIP, is quantised, or is to be used in a way that we do not."""
    kind = config.get("model_type", "clip_text_model")
    if kind != "clip_text_model":
        raise part.error(f"config.json: model_type is {kind!r}, and only clip_text_model is supported",
                         way_out="use another base")
    for key in ("use_attention_mask", "quantization_config"):
        if config.get(key):
            raise part.error(f"config.json: {key} is set, and is not supported", way_out="use another base")


def check_values(config: Mapping[str, Any], network: type, part: Part, *, file: str = "config.json") -> None:
    """ConfigError for a value whose type is none of those that the signature of `network` names for its key."""
    for key, allowed in _leaf_types(network).items():
        for value in _leaves(config[key]) if key in config else ():
            unset = value is None and bool in allowed  # SDXL's own config has null for false
            if not unset and not any(_is(value, kind) for kind in allowed):
                expected = ", ".join(sorted({getattr(kind, "__name__", repr(kind)) for kind in allowed}))
                raise part.error(f"{file}: {key} is {value!r}, and must be one of: {expected}")


@functools.cache
def parameters_of(network: type) -> frozenset[str]:
    """The keys that a config of a diffusers class may have: the parameters of its constructor."""
    return frozenset(_leaf_types(network))


def _check_class(config: Mapping[str, Any], network: type, part: Part, ignored: tuple[str, ...] = ()) -> None:
    name = config.get("_class_name", network.__name__)
    if name != network.__name__:
        raise part.error(f"it is a {name}, and a {network.__name__} is needed", way_out="use another base")
    unknown = sorted(
        key for key in config if key not in parameters_of(network) and key not in ignored and not key.startswith("_")
    )
    if unknown:
        raise part.error(
            f"config.json: {unknown[0]} is no setting of {network.__name__} and would be ignored",
            way_out="remove it if nothing depends on it, or use another base",
        )
    check_values(config, network, part)


@functools.cache
def _leaf_types(network: Any) -> dict[str, tuple[Any, ...]]:
    """Key -> the types, or literal values, that its value, or each entry of it, may have."""
    hints = get_type_hints(network.__init__)
    return {key: tuple(_leaves_of(hint)) for key, hint in hints.items() if key != "return"}


def _leaves_of(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) in (Union, types.UnionType, tuple, list):
        for inner in get_args(hint):
            yield from () if inner is Ellipsis else _leaves_of(inner)
    else:
        yield hint


def _is(value: Any, kind: Any) -> bool:
    if not isinstance(kind, type):
        return type(value) is type(kind) and value == kind
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _leaves(value: Any) -> Iterator[Any]:
    """The values in nested lists, or the value itself."""
    if isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
