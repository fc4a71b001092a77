"""Reads prompts from a list, files, folders or Hugging Face datasets."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smpo.core.checks import check_known, check_positive
from smpo.core.errors import DataError
from smpo.core.registry import Registry
from smpo.data.formats import datasets_needed, is_hub_id, is_saved_dataset
from smpo.data.values import RowProblem, as_text, is_missing, shown
from smpo.prompts.files import COLUMNS, READERS, Entries
from smpo.prompts.record import Prompt

DATASETS: Registry[Entries] = Registry("source of prompts", {"hf": "smpo.prompts.huggingface:read_dataset"})
HPDV2_STYLES = ("anime", "concept-art", "paintings", "photo")
Source = Path | str | Sequence[Path | str | Prompt]


def read_prompts(
    source: Source, *, limit: int | None = None, per_category: int | None = None, unique: bool = False,
    split: str | None = None,
) -> list[Prompt]:
    """The prompts of `source`, in its order.

    A table or JSON object has the prompt under prompt, Prompt, Prompts or caption; it may have a category (category,
    Category, style, tag) and a challenge (challenge, Challenge). If the prompts of several files have no category, the
    name of the file is their category, as for HPDv2's styles.

    Args:
        source: a list of prompts; a .txt, .jsonl, .json, .csv, .tsv or .parquet file, a list of such files, or a folder
            of them (from HPDv2's benchmark folder the four styles, without DrawBench); the folder of a dataset that
            `save_to_disk` wrote, or the hub id of a dataset.
        limit: keep the first so many, after all other choices.
        per_category: keep the first so many of each category.
        unique: keep the first of equal texts, such as captions of Pick-a-Pic.
        split: of a Hugging Face dataset with several splits.

    Raises:
        ConfigError: the kind of file is unknown, or a number is not > 0.
        DataError: a source cannot be read, has no prompts, or has an empty one; the message names file and line.
    """
    check_positive(**{name: n for name, n in (("limit", limit), ("per_category", per_category)) if n is not None})
    prompts = _all_prompts(source, split)
    if unique:
        prompts = _firsts(prompts)
    if per_category is not None:
        prompts = _first_of_each(prompts, per_category)
    return prompts[:limit]


def _all_prompts(source: Source, split: str | None) -> list[Prompt]:
    if isinstance(source, str | Path):
        return _of_place(str(source), split)
    if source and all(isinstance(item, Path) or _names_file(item) for item in source):
        return _of_files([Path(str(item)) for item in source])
    return _prompts_of(enumerate(source, start=1), name="prompts")


def _names_file(item: Path | str | Prompt) -> bool:
    """Whether an item of a list is the path of a prompts file and not a prompt."""
    return isinstance(item, str) and Path(item).suffix.lower() in READERS


def _of_place(source: str, split: str | None) -> list[Prompt]:
    if not source.strip():
        raise DataError("prompts are named by an empty text; name their file, folder or dataset")
    path = Path(source)
    if is_hub_id(source) and path.suffix.lower() not in READERS or path.is_dir() and is_saved_dataset(path):
        with datasets_needed():
            entries: Entries = DATASETS.resolve("hf")(source, split)
        return _prompts_of(entries, name=source)
    return _of_files(_files_in(path)) if path.is_dir() else _of_file(path)


def _files_in(folder: Path) -> list[Path]:
    """The prompts files of `folder` by name; of HPDv2's benchmark folder only its styles, not DrawBench."""
    styles = [folder / f"{style}.json" for style in HPDV2_STYLES]
    if all(path.is_file() for path in styles):
        return styles
    files = sorted(path for path in folder.iterdir()
                   if path.suffix.lower() in READERS and not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder} holds no prompts file ({', '.join(READERS)}) and no saved dataset; correct the path")
    return files


def _of_files(paths: Sequence[Path]) -> list[Prompt]:
    """The prompts of all files; the name of a file is their category, except for shards of a parquet table."""
    all_prompts = []
    for path in paths:
        prompts = _of_file(path)
        if path.suffix.lower() != ".parquet" and not any(prompt.category for prompt in prompts):
            prompts = [replace(prompt, category=path.stem) for prompt in prompts]
        all_prompts += prompts
    return all_prompts


def _of_file(path: Path) -> list[Prompt]:
    check_known(path.suffix.lower(), READERS, what="kind of prompts file")
    if not path.is_file():
        name = str(path) if str(path).isprintable() else repr(str(path))
        raise DataError(f"{name} does not exist; correct the path")
    return _prompts_of(READERS[path.suffix.lower()](path), name=str(path))


def _prompts_of(entries: Iterable[tuple[int, Any]], *, name: str) -> list[Prompt]:
    """The prompts of numbered texts, mappings or records."""
    prompts = [_prompt_of(entry, place=f"{name}:{number}") for number, entry in entries]
    if not prompts:
        raise DataError(f"{name} holds no prompts; add at least one")
    return prompts


def _prompt_of(entry: Any, *, place: str) -> Prompt:
    if isinstance(entry, Prompt):
        values: dict[str, Any] = {"text": entry.text, **entry.labels()}
    elif isinstance(entry, dict):
        values = {field: _first_of(entry, names) for field, names in COLUMNS.items()}
    else:
        values = {"text": entry}
    text = values.pop("text")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: expected a prompt, got {shown(text)}; correct or delete the line")
    try:
        text = as_text(text, name="the prompt")
        labels = {field: _label(value, field) for field, value in values.items()}
    except RowProblem as problem:
        raise DataError(f"{place}: {problem.detail}; correct or delete the line") from problem
    return Prompt(text.strip(), **labels)


def _label(value: Any, field: str) -> str | None:
    return as_text(value if isinstance(value, str) or is_missing(value) else shown(value), name=field).strip() or None


def _first_of(entry: dict[str, Any], names: Sequence[str]) -> Any:
    return next((entry[name] for name in names if name in entry), None)


def _firsts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first of the prompts with equal texts."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(prompt.text, prompt)
    return list(first.values())


def _first_of_each(prompts: Sequence[Prompt], number: int) -> list[Prompt]:
    if not any(prompt.category for prompt in prompts):
        raise DataError("per_category needs prompts with a category, and none has one; use limit")
    seen: Counter[str | None] = Counter()
    chosen = []
    for prompt in prompts:
        seen[prompt.category] += 1
        if seen[prompt.category] <= number:
            chosen.append(prompt)
    return chosen
