"""The formats of pair sets, and how the format of a path is recognised."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from smpo.core.errors import DataError
from smpo.data import FORMATS, TABLES
from smpo.data.entries import ENTRIES
from smpo.data.folders import ends_of, sides_of
from smpo.data.layouts import LayoutFinder
from smpo.data.parquet_files import files_below, open_parquet
from smpo.data.rankings import ranks_images
from smpo.data.records import PairSource, SourceOptions
from smpo.data.tables import METADATA, tables_in

ACCEPTED = ("a .parquet file or a folder of them (parquet), a folder from datasets' save_to_disk or a hub id "
            "owner/name (hf), a .jsonl, .json, .csv or .tsv file, a folder with one of these or with metadata.*, "
            "a folder with win/ and lose/ or with a_w.png and a_l.png (folders), a .tar file or a folder of them (tar)")


def detect_format(source: str) -> tuple[str, str]:
    """The format of `source`, and by what it was recognised.

    Raises:
        DataError: no format fits; the message lists all.
    """
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):  # unlike pathlib's, it takes any text
        return _detect_folder(path)
    if os.path.isfile(path):
        suffix = path.suffix.lower()
        if suffix in ENTRIES or suffix == ".tar":
            if suffix == ".parquet" and _is_metadata(path):
                return "metadata", "a .parquet file of metadata"
            return "jsonl" if suffix == ".ndjson" else suffix[1:], f"a {suffix} file"
        raise DataError(f"cannot tell the format of {source[-200:]}; accepted: {ACCEPTED}")
    if is_hub_id(source):
        return "hf", "no such path, so a hub id"
    raise DataError(f"{source[-200:]} does not exist; accepted: {ACCEPTED}")


def _detect_folder(path: Path) -> tuple[str, str]:
    if is_saved_dataset(path):
        return "hf", "a folder written by save_to_disk"
    if sides := sides_of(path):
        return "folders", f"a folder with {sides[0]}/ and {sides[1]}/"
    ends, name = ends_of(path), next((name for name in METADATA if (path / name).is_file()), None)
    if ends and not (name and _names_pairs(path / name)):
        return "folders", f"a folder with names that end in {ends[0]} and {ends[1]}"
    if name:
        return "metadata" if name.endswith(".parquet") else name.rpartition(".")[2], f"a folder with {name}"
    if files_below(path, "*.parquet"):
        return "parquet", "a folder with .parquet files"
    if files_below(path, "*.tar"):
        return "tar", "a folder with .tar files"
    for format in TABLES:
        if len(tables_in(path, format)) == 1:
            return format, f"a folder with one .{format} file"
    raise DataError(f"cannot tell the format of {path}; accepted: {ACCEPTED}")


def _names_pairs(table: Path) -> bool:
    """Whether the first row of a table names both images of a pair."""
    values = next((entry.values for entry in ENTRIES[table.suffix](table) if entry.values), {})
    return LayoutFinder().of(values) is not None


def _is_metadata(file: Path) -> bool:
    """Whether a parquet file ranks images that are files of their own."""
    with open_parquet(file) as parquet:
        return ranks_images(parquet.schema_arrow.names)


def open_source(source: str, *, format: str, split: str | None = None, columns: Mapping[str, str] | None = None,
                image_root: str | None = None) -> PairSource:
    """The reader of `source` in `format`; no image is read yet. The arguments are those of `SourceOptions`.

    Raises:
        ConfigError: unknown format.
        DataError: the source cannot be read, is empty, has no known layout, or needs the package `datasets`.
    """
    options = SourceOptions(format, split, columns, image_root)
    with datasets_needed():
        reader: PairSource = FORMATS.resolve(format)(os.path.expanduser(source), options)
    if not len(reader):
        raise DataError(f"{source} holds no rows; correct the path or split")
    return reader


def is_hub_id(source: str) -> bool:
    """Whether `source` has the form owner/name and is no path."""
    if not os.path.lexists(source) and max(map(len, source.split("/"))) > 96:  # the hub's limit
        return False
    path = Path(source)
    likely = source.count("/") == 1 and not source.startswith(("/", ".", "~"))
    return likely and not path.exists() and not path.parent.exists()


def is_saved_dataset(folder: Path) -> bool:
    """Whether datasets' `save_to_disk` wrote `folder`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


@contextmanager
def datasets_needed() -> Iterator[None]:
    """Inside, a missing package datasets, which is optional, raises a DataError that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise DataError("format hf needs the package datasets, not installed; pip install 'smpo[hf]'") from error
