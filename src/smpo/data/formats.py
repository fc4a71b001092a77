"""Which formats a pair set may have, and how the format of a path is recognised."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smpo.data.records import PairSource
from smpo.errors import DataError
from smpo.registry import Registry

FORMATS = Registry("data.format", {
    "pickapic": "smpo.data.parquet:ParquetPairs",
    "hf": "smpo.data.huggingface:HuggingFacePairs",
    "jsonl": "smpo.data.jsonl:JsonlPairs",
    "folders": "smpo.data.folders:FolderPairs",
})

LAYOUTS = ("a .parquet file or a folder of them (pickapic), a folder from datasets' save_to_disk or a hub id "
           "owner/name (hf), a .jsonl file (jsonl), a folder with win/ and lose/ (folders)")


def detect_format(source: str) -> tuple[str, str]:
    """The format of `source` and what it was recognised by.

    Raises:
        DataError: nothing matches; the message lists the accepted layouts.
    """
    path = Path(source)
    if path.is_dir():
        return _detect_folder(path)
    if path.is_file():
        by_suffix = {".parquet": "pickapic", ".jsonl": "jsonl"}
        if path.suffix not in by_suffix:
            raise DataError(f"cannot tell the format of {source}; accepted: {LAYOUTS}")
        return by_suffix[path.suffix], f"a {path.suffix} file"
    if is_hub_id(source):
        return "hf", "no such path, so a hub id"
    raise DataError(f"{source} does not exist; accepted: {LAYOUTS}")


def _detect_folder(path: Path) -> tuple[str, str]:
    if is_saved_dataset(path):
        return "hf", "a folder written by save_to_disk"
    if (path / "win").is_dir() and (path / "lose").is_dir():
        return "folders", "a folder with win/ and lose/"
    if next(path.rglob("*.parquet"), None):
        return "pickapic", "a folder with .parquet files"
    if len(list(path.glob("*.jsonl"))) == 1:
        return "jsonl", "a folder with one .jsonl file"
    raise DataError(f"cannot tell the format of {path}; accepted: {LAYOUTS}")


def open_source(source: str, *, format: str, split: str | None = None) -> PairSource:
    """The reader of `source` in `format`; no image is read yet.

    Raises:
        ConfigError: unknown format.
        DataError: the source cannot be read, lacks columns, or needs the package `datasets`.
    """
    with datasets_needed():
        return FORMATS.resolve(format)(os.path.expanduser(source), split)


def is_hub_id(source: str) -> bool:
    """Whether `source` reads like owner/name and is no path."""
    path = Path(source)
    likely = source.count("/") == 1 and not source.startswith(("/", ".", "~"))
    return likely and not path.exists() and not path.parent.exists()


def is_saved_dataset(folder: Path) -> bool:
    """Whether datasets' `save_to_disk` wrote `folder`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


@contextmanager
def datasets_needed() -> Iterator[None]:
    """Turns the lack of the optional package datasets into a DataError that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise DataError("format hf needs the package datasets, not installed; pip install 'smpo[hf]'") from error
