"""Which model it is: a digest of the content of each part, whatever the model is called and wherever it lies.

Weights count by the bytes of the files that are read, their digests remembered (`smpo.core.digests`); settings count by
what they say, without what only tells who wrote them. So a copy, a link and a moved folder are the same model, and a
part that was changed in place is another.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smpo.core.artefacts import MANIFEST, Artefact, fingerprint
from smpo.core.digests import file_digests
from smpo.core.errors import ConfigError, StaleError
from smpo.models.sources import INDEX, KINDS, STEMS, weight_patterns

VOLATILE = {
    "_name_or_path", "_commit_hash", "_diffusers_version", "transformers_version", "torch_dtype", "dtype",
    "name_or_path", "tokenizer_file",
}
"""Keys of settings that name places, versions or how weights were stored: they decide nothing of what is loaded."""
UNUSED = {"safety_checker", "feature_extractor", "requires_safety_checker"}
"""Entries of a pipeline's index that neither training nor generation uses."""
SCHEDULER = "scheduler"


def pipeline_digests(folder: Path) -> dict[str, str]:
    """What tells two pipelines apart: part -> SHA-256 of its content, in hex, and one of the index that joins them.

    Raises:
        ConfigError: the index or a part's settings cannot be read.
    """
    index = {key: value for key, value in _settings(folder / INDEX).items() if key not in UNUSED}
    return {"index": fingerprint(index), **{name: part_digest(folder / name) for name in _part_names(folder)}}


def encoder_parts(folder: Path, *, denoiser: str) -> dict[str, str]:
    """Part -> digest of what a cache is made with: VAE, text encoders and tokenizers of the pipeline in `folder`."""
    names = [name for name in _part_names(folder) if name not in (denoiser, SCHEDULER)]
    return {name: part_digest(folder / name) for name in names}


def _part_names(folder: Path) -> list[str]:
    names = sorted(name for name, about in _settings(folder / INDEX).items() if isinstance(about, list) and any(about))
    return [name for name in names if name not in UNUSED and (folder / name).is_dir()]


def part_digest(folder: Path) -> str:
    """SHA-256, in hex, of the settings, vocabularies and weights in a part's folder, as far as they are read."""
    weights, texts, settings = loaded_weights(folder), [], {}
    for path in sorted(folder.iterdir()):
        if path.name.endswith(".index.json"):
            continue  # which tensor is in which file: the files say so themselves
        if path.suffix == ".json" and path.stat().st_size < 1 << 20:
            settings[path.name] = _settings(path)
        elif path.suffix in (".json", ".txt", ".model"):
            texts.append(path)
    digests = file_digests([*weights, *texts])
    return fingerprint({
        "weights": [digests[path] for path in weights],
        "texts": {path.name: digests[path] for path in texts}, "settings": settings,
    })


def loaded_weights(folder: Path) -> list[Path]:
    """The weight files of a part that are read: of one kind, in the order of their names."""
    stems = STEMS.get(folder.name, tuple(dict.fromkeys(stem for stems in STEMS.values() for stem in stems)))
    for kind in KINDS:
        patterns = [pattern for stem in stems for pattern in weight_patterns(stem, kind)]
        found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
        if found:
            return found
    return []


def check_same_parts(
    found: Mapping[str, str], expected: Mapping[str, str], *, made: str, model: str, again: str
) -> None:
    """StaleError unless the parts of `model` are those that `made` was made with.

    Args:
        found: part -> digest, of the model as it is now.
        expected: the same, as it was recorded.
        made: what was made with it, for the message.
        model: its source, for the message.
        again: the way out.
    """
    changed = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    if changed:
        then, now = (_short(digests.get(changed[0])) for digests in (expected, found))
        raise StaleError(
            f"{made} was made with another {' and another '.join(changed)} than {model} has now "
            f"({changed[0]}: {then} then, {now} now); bring the old one back, or {again}"
        )


def check_trained(folder: Path) -> None:
    """DataError unless a model folder of `smpo train`, if it is one, is what training wrote; every file is read."""
    if folder.name == "model" and (folder.parent / MANIFEST).is_file():
        Artefact.open(folder.parent, stage="train").check("model/")


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


def _settings(path: Path) -> dict[str, Any]:
    """A file of settings, parsed, without the keys that decide nothing."""
    try:
        return _without(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model: {path} cannot be read ({reason}); give an undamaged diffusers pipeline") from error


def _without(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without(value) for key, value in content.items() if key not in VOLATILE}
    return [_without(value) for value in content] if isinstance(content, list) else content

