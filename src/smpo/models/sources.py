"""From a source to a local folder: a folder, a single file, `package://` data, or a model of the hub.

A hub id may carry its revision: `owner/name@revision`. What is downloaded lies in the hub's own cache on this machine,
and is found there when the hub cannot be reached.
"""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from smpo.core.errors import ConfigError
from smpo.models.package_data import resolve_source
from smpo.models.single_file import SUFFIXES, converted
from smpo.models.weight_files import DIFFUSERS, KINDS, TRANSFORMERS, weight_patterns

INDEX = "model_index.json"
CONFIG = "config.json"
STEMS = {"unet": DIFFUSERS, "vae": DIFFUSERS, "text_encoder": TRANSFORMERS, "text_encoder_2": TRANSFORMERS}
"""Folder of a network in a pipeline -> first part of the names of its weight files."""


def pinned(source: str, revision: str | None) -> str:
    """`source` with its revision in it: "owner/name@revision"."""
    return source if revision is None else f"{source}@{revision}"


def local_pipeline(source: str, *, revision: str | None = None) -> Path:
    """The local diffusers folder of a pipeline.

    Args:
        source: folder, single file, `package://module/folder`, or hub id, which may end in `@revision`.
        revision: branch, tag or commit of a hub id; None is the newest. It does not matter to what is local.

    Raises:
        ConfigError: there is no such thing, or it holds no pipeline.
    """
    folder = _local(source, revision, tuple(STEMS))
    if not (folder / INDEX).is_file():
        raise ConfigError(f"model: {folder} has no {INDEX}; give the folder or hub id of a whole diffusers pipeline")
    return folder


def local_denoiser(source: str, *, revision: str | None = None) -> Path:
    """The local folder that holds a UNet's config and weights; arguments and errors as in `local_pipeline`.

    The source may be a pipeline, of which only the UNet is fetched, or hold nothing but a UNet, in its top folder or in
    `unet`.
    """
    folder = _local(source, revision, ("unet",))
    for place in (folder / "unet", folder):
        if (place / CONFIG).is_file():
            return place
    raise ConfigError(
        f"model: {folder} has neither unet/{CONFIG} nor {CONFIG}; give the folder or hub id of a pipeline or a UNet"
    )


def cached_pipeline(source: str, *, revision: str | None = None) -> Path | None:
    """The folder of `source` if its configs are on this machine: what is local, or a hub model's snapshot in the cache.

    Neither the network nor a single file's weights are touched: None for what is not there yet.

    Raises:
        ConfigError: the source is a path, and nothing is there.
    """
    path = Path(resolve_source(source))
    if path.is_dir():
        return path
    if path.is_file():
        return None
    name, revision = _hub_id(source, revision)
    found = try_to_load_from_cache(name, f"unet/{CONFIG}", revision=revision)
    return Path(found).parents[1] if isinstance(found, str) else None


def _local(source: str, revision: str | None, networks: Sequence[str]) -> Path:
    path = Path(resolve_source(source))
    if path.is_dir():
        return path
    if path.is_file():
        return converted(path)
    return _downloaded(*_hub_id(source, revision), networks)


def _hub_id(source: str, revision: str | None) -> tuple[str, str | None]:
    """Name and revision of a model of the hub; ConfigError where `source` cannot be one, or has another revision."""
    name, _, inside = source.partition("@")
    if inside and revision not in (None, inside):
        raise ConfigError(f"model: {source} names the revision {inside}, and model.revision is {revision}; give one")
    if not _is_hub_id(name):
        path = Path(resolve_source(source))
        kind = "file" if path.suffix in SUFFIXES else "folder"
        raise ConfigError(f"model: {path} is no {kind}; give a diffusers pipeline folder or a hub id")
    return name, inside or revision


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not name.startswith((".", "~"))


def _downloaded(name: str, revision: str | None, networks: Sequence[str]) -> Path:
    """The snapshot of a hub model with all settings and vocabularies, and one kind of weights for each network."""
    folder = _snapshot(name, revision, ["*.json", "*/merges.txt"])
    wanting = [network for network in networks if (folder / network).is_dir()] or ["."]  # a UNet alone lies at the top
    for kind in KINDS:
        patterns = {
            network: [f"{network}/{pattern}".removeprefix("./") for stem in STEMS.get(network, STEMS["unet"])
                      for pattern in weight_patterns(stem, kind)]
            for network in wanting
        }
        if wanting:
            _snapshot(name, revision, [pattern for found in patterns.values() for pattern in found])
        wanting = [network for network in wanting if not any(any(folder.glob(p)) for p in patterns[network])]
    return folder


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # unknown model or revision, no network, no cache: the hub's client has no common base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"model: {pinned(name, revision)} is no folder, and the hub does not deliver it ({reason}); correct it, "
            "or download the model and give its folder"
        ) from error
