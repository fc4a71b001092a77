"""Format `hf`: a Hugging Face dataset of any layout, from a folder or from the hub."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import datasets

from smpo.core.errors import DataError
from smpo.data.entries import cells_of
from smpo.data.files import fingerprint_files
from smpo.data.layouts import ColumnMap, LayoutFinder
from smpo.data.parquet import BATCH_ROWS
from smpo.data.records import RawPair, SourceOptions
from smpo.data.rows import raw_pair


@dataclass(frozen=True)
class HuggingFacePairs:
    """A dataset saved with `save_to_disk`, or one of the hub.

    Attributes:
        source: folder or hub id.
        options: how it is read; the split is needed where there are several.
    """

    source: str
    options: SourceOptions

    def __post_init__(self) -> None:
        _ = self._dataset  # raises if the source cannot be read

    @cached_property
    def _whole(self) -> datasets.Dataset:
        return open_dataset(self.source, self.options.split)

    @cached_property
    def _layouts(self) -> LayoutFinder:
        return LayoutFinder(self.options.columns)

    @cached_property
    def _mapping(self) -> ColumnMap:
        return self._layouts.required(self._whole.column_names, source=self.source)

    @cached_property
    def _dataset(self) -> datasets.Dataset:
        """The needed columns, memory-mapped; images stay encoded."""
        loaded = self._whole.select_columns(list(self._mapping.columns.values()))
        for side in ("image_0", "image_1"):
            name = self._mapping.columns[side]
            if isinstance(loaded.features.get(name), datasets.Image):
                loaded = loaded.cast_column(name, datasets.Image(decode=False))
        return loaded

    @property
    def has_labels(self) -> bool:
        """Whether there are columns of labels or votes."""
        return self._mapping.has_labels

    def __len__(self) -> int:
        return len(self._dataset)

    def describe(self) -> str:
        """The layout of the columns."""
        return self._layouts.describe()

    def fingerprint(self) -> str:
        """Digest of the names and contents of the arrow files."""
        files = [Path(entry["filename"]) for entry in self._dataset.cache_files]
        return fingerprint_files(files, root=files[0].parent if files else Path(self.source))

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`; the rows before the first are not touched."""
        if not rows:
            return
        chosen = rows if isinstance(rows, range) else frozenset(rows)
        positions = range(rows[0], rows[-1] + 1)
        table = self._dataset.select(positions).with_format("arrow")
        images = self.options.images(Path(self.source))
        for start in range(0, len(positions), BATCH_ROWS):
            batch = table[start:start + BATCH_ROWS].combine_chunks().to_batches()[0]
            for index, row in enumerate(positions[start:start + BATCH_ROWS]):
                if row in chosen:
                    place = f"row {row + 1} of the dataset"
                    yield raw_pair(row, cells_of(batch, index), self._mapping, images, place=place)


def open_dataset(source: str, split: str | None) -> datasets.Dataset:
    """The dataset in the folder `source`, or with that id on the hub; memory-mapped.

    Raises:
        DataError: there is none, or it has several splits and `split` names none of them.
    """
    return _choose_split(_load(source, split), split, source)


def _load(source: str, split: str | None) -> datasets.Dataset | datasets.DatasetDict:
    try:
        if Path(source).is_dir():
            return datasets.load_from_disk(source)
        return datasets.load_dataset(source, split=split)
    except (OSError, ValueError, KeyError, TypeError) as error:  # not there, unreachable, no such split, damaged JSON
        reason = str(error).partition("\n")[0]
        raise DataError(f"'{source}' is neither a saved dataset nor one the hub delivers ({reason}); "
                        "correct the path, id or split") from error


def _choose_split(loaded: datasets.Dataset | datasets.DatasetDict, split: str | None, source: str) -> datasets.Dataset:
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        advice = "choose one with split" if split is None else f"there is no split '{split}'"
        raise DataError(f"{source} holds the splits {', '.join(loaded)}; {advice}")
    return loaded[split]
