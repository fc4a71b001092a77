"""Loading and using the parts of a diffusers pipeline folder: what the families share."""

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, SchedulerMixin
from torch import Tensor
from transformers import CLIPTokenizer

from smpo.core.errors import DataError
from smpo.models import schedules
from smpo.models.configs import check_values
from smpo.models.folders import Part
from smpo.models.loading import quiet_transformers

PROBE = "a photo of a cat"
MAX_PADDING = 256  # rows that an embedding may have beyond the vocabulary: some round it up


def load_tokenizer(part: Part, encoder: dict[str, Any], *, pooled: bool) -> CLIPTokenizer:
    """The tokenizer in `part`, proven to fit the text encoder with the (completed) config `encoder`.

    Args:
        part: the tokenizer's folder.
        encoder: the text encoder's config.
        pooled: whether the text encoder's state at the end of the prompt is used: it must find the end.

    Raises:
        ConfigError: it cannot be loaded; its vocabulary, its length or its special tokens are not the encoder's.
    """
    if not (part.folder / "tokenizer.json").exists():
        part.file("vocab.json"), part.file("merges.txt")  # transformers 5 makes an empty one of missing files
    for name in ("tokenizer_config.json", "tokenizer.json", "vocab.json", "special_tokens_map.json"):
        if (part.folder / name).exists():
            part.json(name)
    try:
        with quiet_transformers():
            tokenizer = CLIPTokenizer.from_pretrained(part.folder)
            ids = tokenizer(PROBE).input_ids
            largest, special = max(tokenizer.get_vocab().values(), default=-1), set(tokenizer.all_special_tokens)
    except Exception as error:  # a library's parser, given files of a stranger
        raise part.error(error) from error
    if len(tokenizer) <= len(special):
        raise part.error("no vocabulary found")
    _check_tokenizer(tokenizer, part, encoder, largest)
    ends = encoder["eos_token_id"]  # 2 stands in old configs for the largest token of the prompt
    if pooled and ends != tokenizer.eos_token_id and not (ends == 2 and tokenizer.eos_token_id == largest):
        raise part.error(f"it ends prompts with token {tokenizer.eos_token_id}, and the text encoder looks for {ends}",
                         way_out="use the tokenizer of this text encoder")
    if ids[0] != tokenizer.bos_token_id or ids[-1] != tokenizer.eos_token_id or len(ids) < 3:
        raise part.error(f"it makes {ids[:8]} of {PROBE!r}, which does not begin with {tokenizer.bos_token_id} and end "
                         f"with {tokenizer.eos_token_id}")
    return tokenizer


def _check_tokenizer(tokenizer: CLIPTokenizer, part: Part, encoder: dict[str, Any], largest: int) -> None:
    rows, length = encoder["vocab_size"], encoder["max_position_embeddings"]
    if not rows - MAX_PADDING <= largest + 1 <= rows:
        raise part.error(f"its vocabulary has {largest + 1} entries, and the text encoder's {rows}",
                         way_out="use the tokenizer of this text encoder")
    if tokenizer.model_max_length != length:
        raise part.error(
            f"its model_max_length is {tokenizer.model_max_length:.6g}, and the text encoder reads {length} tokens",
            way_out=f"set model_max_length in tokenizer_config.json to {length}",
        )
    for name in ("bos_token", "eos_token", "pad_token"):
        number = getattr(tokenizer, f"{name}_id")
        if number is None or not 0 <= number <= largest:
            raise part.error(f"it has no {name}", way_out="use the tokenizer of this text encoder")


def load_scheduler(part: Part, class_name: str) -> SchedulerMixin:
    """The scheduler that a pipeline samples with: any of diffusers', whatever it was trained with.

    Raises:
        ConfigError: no such class, a config that it does not take, or levels of noise that are not finite.
    """
    kind, config = getattr(diffusers, class_name, None), part.json(schedules.CONFIG)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise part.error(f"diffusers has no scheduler {class_name}")
    check_values(config, kind, part, file=schedules.CONFIG)
    try:
        scheduler = kind.from_config(config)  # type: ignore[attr-defined]  # diffusers is not seen
        scheduler.set_timesteps(2)
        fresh = kind.from_config(config)  # type: ignore[attr-defined]  # as above
    except Exception as error:  # the constructor of a library, given numbers and words of a stranger
        raise part.error(f"{schedules.CONFIG} describes no {class_name}: {error or type(error).__name__}") from error
    for name, largest in {"betas": 1.0, "alphas_cumprod": 1.0, "sigmas": float("inf")}.items():
        values = getattr(fresh, name, None)  # NaN is in no range
        if isinstance(values, Tensor) and not ((values >= 0) & (values <= largest) & values.isfinite()).all():
            raise part.error(f"{schedules.CONFIG} gives levels of noise that are no levels")
    return fresh


@torch.no_grad()
def posterior_moments(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latents' posterior, each (n, C, H / f, W / f), float32.

    Scaled is what the pipeline undoes when it decodes: (z - latents_mean) / latents_std * scaling_factor by channel,
    where the VAE has these statistics (only SDXL's pipeline undoes them, see `fitting`), else z * scaling_factor.

    Args:
        vae: with its `scaling_factor` and statistics.
        images: in [-1, 1], shape (n, 3, H, W).

    Raises:
        DataError: the encoder gave NaN or infinite values (SDXL's VAE does in fp16; use float32).
    """
    posterior = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
    mean, std = posterior.mean.float(), posterior.std.float()
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
        raise DataError(f"the VAE gave non-finite latents in {vae.dtype}; set cache.vae_dtype=float32")
    scale = vae.config.scaling_factor
    if vae.config.latents_mean is not None and vae.config.latents_std is not None:
        shift, scales = (
            torch.tensor(values, device=mean.device).view(1, -1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        mean, scale = mean - shift, scale / scales
    return mean * scale, std * scale


def token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Token ids padded and truncated to the tokenizer's limit, shape (n, L)."""
    return tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
