"""The one way in for every network: UNet, VAE and text encoders, for caching, training and generation alike.

A network is built without memory from its config, and its tensors are put in from its files, so that what was checked
is what runs; no library fills gaps. Proven: no tensor is missing, none is there that has no place (but for HARMLESS),
none has another shape or a type that is not floating, all values are finite.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.utils import logging as transformers_logging

from smpo.models.configs import check_sizes, check_text_config, check_unet_config, check_vae_config
from smpo.models.folders import Part
from smpo.models.weight_files import DIFFUSERS, TRANSFORMERS, WeightFile, weight_files

CONFIG = "config.json"
HARMLESS = {
    r"embeddings\.position_ids": "the numbers 0, 1, 2, ... that older transformers saved; they are made anew",
    r"text_projection\.weight": "of a text encoder without projection: only a comparison with images reads it",
    r"logit_scale": "CLIP's temperature, which only its own training reads",
}
"""Tensors of a text encoder that may be there and are not read: pattern of the name -> why."""


@dataclass(frozen=True)
class Kind:
    """How a class of network is built and named.

    Attributes:
        network: the class.
        stems: first part of the names of its weight files.
        spellings: (pattern, replacement) of names of tensors that mean the same, brought to one form.
        harmless: patterns of names of tensors that are left out.
    """

    network: type[nn.Module]
    stems: tuple[str, ...]
    spellings: tuple[tuple[str, str], ...] = ()
    harmless: tuple[str, ...] = ()

    def form(self, name: str) -> str:
        """The one form of a tensor's name."""
        for pattern, replacement in self.spellings:
            name = re.sub(pattern, replacement, name)
        return name


FLAT = ((r"^text_model\.", ""),)  # transformers >= 5.6 saves CLIPTextModel without this prefix, older ones with it
OLD_ATTENTION = tuple(  # of VAEs that diffusers < 0.18 saved
    (rf"(\.attentions\.\d+)\.{old}\.", rf"\1.{new}.")
    for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items()
)
KINDS = {
    kind.network: kind for kind in (
        Kind(UNet2DConditionModel, DIFFUSERS),
        Kind(AutoencoderKL, DIFFUSERS, OLD_ATTENTION),
        Kind(CLIPTextModel, TRANSFORMERS, FLAT, tuple(HARMLESS)),
        Kind(CLIPTextModelWithProjection, TRANSFORMERS, FLAT, (r"embeddings\.position_ids", r"logit_scale")),
    )
}


def load_network(network: type[nn.Module], part: Part, *, dtype: torch.dtype) -> Any:
    """The network in `part`, proven, on the CPU, in `dtype` and eval mode.

    The peak is one copy of the weights: each tensor is converted and released in turn.

    Args:
        network: a class of KINDS.
        part: its folder.
        dtype: of all weights.

    Raises:
        ConfigError: anything of what the module's docstring lists, or a config that builds no such network.
    """
    empty, files, places = _matched(network, part)
    weights: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in file.tensors():
            if name in places:  # where a tensor lies in a file moves last bits, so it is copied
                weights[places[name]] = _finite(tensor.to(dtype, copy=True), name, tensor.dtype, part)
    empty.load_state_dict(weights, strict=True, assign=True)
    for module in empty.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                assert name == "position_ids", name
                setattr(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return empty.eval()


def prove_network(network: type[nn.Module], part: Part) -> Any:
    """The network in `part` without memory, after the same proof as in `load_network`: each tensor is read once.

    Raises:
        ConfigError: as in `load_network`.
    """
    empty, files, places = _matched(network, part)
    for file in files:
        for name, tensor in file.tensors():
            if name in places:
                _finite(tensor, name, tensor.dtype, part)
    return empty.eval()


def empty_network(network: type[nn.Module], part: Part) -> Any:
    """The network that the config of `part` describes, float32, without memory; ConfigError where it describes none."""
    config = network_config(network, part)
    try:
        with torch.device("meta"), quiet_transformers():
            if issubclass(network, CLIPTextModel | CLIPTextModelWithProjection):
                return network(CLIPTextConfig.from_dict(config))
            return network.from_config(config)  # type: ignore[attr-defined]  # of diffusers' classes
    except Exception as error:  # the constructor of a library, given numbers and words of a stranger
        raise part.error(f"{CONFIG} describes no {network.__name__}: {error or type(error).__name__}") from error


def network_config(network: type[nn.Module], part: Part) -> dict[str, Any]:
    """The checked config of a network; ConfigError names a value that is not honoured or impossible."""
    config = part.json(CONFIG)
    check_sizes(config, part)
    if network is UNet2DConditionModel:
        check_unet_config(config, part)
    elif network is AutoencoderKL:
        check_vae_config(config, part)
    else:
        check_text_config(config, part)
    return config


def _matched(network: type[nn.Module], part: Part) -> tuple[Any, list[WeightFile], dict[str, str]]:
    """The empty network, its open files, and name in the files -> name in the network of every tensor."""
    if not part.folder.is_dir():
        raise part.error("there is no such folder")
    kind, empty = KINDS[network], empty_network(network, part)
    files = [WeightFile(part, path) for path in weight_files(part, kind.stems)]
    wanted = {kind.form(name): name for name in empty.state_dict()}
    found: dict[str, str] = {}
    for name in (name for file in files for name in file.headers):
        if kind.form(name) in found:
            raise part.error(f"two of its tensors are the same one: {found[kind.form(name)]} and {name}")
        found[kind.form(name)] = name
    unknown = [found[form] for form in found.keys() - wanted.keys() if not _matches(form, kind.harmless)]
    _refuse(part, "lacks", [wanted[form] for form in wanted.keys() - found.keys()], len(wanted), unknown)
    _refuse(part, "has no place for", unknown, len(found))
    places = {found[form]: own for form, own in wanted.items()}
    _check_headers(part, files, places, empty.state_dict())
    return empty, files, places


def _check_headers(part: Part, files: Iterable[WeightFile], places: Mapping[str, str], own: Mapping[str, Any]) -> None:
    """ConfigError for a tensor of another shape than the config describes, or of a type that is not floating."""
    headers = {name: header for file in files for name, header in file.headers.items() if name in places}
    wrong = [name for name, header in headers.items() if header.shape != tuple(own[places[name]].shape)]
    if wrong:
        first = min(wrong)
        raise part.error(
            f"{len(wrong)} of {len(places)} tensors have another shape than {CONFIG} describes, the first is {first}: "
            f"{list(headers[first].shape)} instead of {list(own[places[first]].shape)}"
        )
    integer = [name for name, header in headers.items() if header.dtype is None]
    if integer:
        raise part.error(
            f"{len(integer)} of {len(places)} tensors are {headers[min(integer)].stored_as}, the first is "
            f"{min(integer)}; weights of 16 bits or more are needed"
        )


def _refuse(part: Part, what: str, names: list[str], count: int, beside: Iterable[str] = ()) -> None:
    if names:
        unknown = next((f", and has {name}, which it has no place for" for name in sorted(beside)), "")
        raise part.error(f"it {what} {len(names)} of {count} tensors, the first is {min(names)}{unknown}")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _finite(tensor: Tensor, name: str, stored: torch.dtype, part: Part) -> Tensor:
    """`tensor`, unless a value in it is NaN or infinite: one pass, no copy."""
    if tensor.numel() and not all(torch.isfinite(bound) for bound in torch.aminmax(tensor)):
        converted = "" if tensor.dtype == stored else f" in {str(tensor.dtype).removeprefix('torch.')}"
        raise part.error(f"{name} has values that are NaN or infinite{converted}")
    return tensor


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' notices about configs and tokenizers: what matters in them is checked here."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
