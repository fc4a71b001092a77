"""A checked pair set: the index that `smpo pairs` wrote, and the images, which are read from the source."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from smpo.core.artefacts import Artefact
from smpo.core.errors import DataError, StaleError
from smpo.data.formats import open_source
from smpo.data.images import content_uid
from smpo.data.records import PairImages, PairSource, RawPair

STAGE = "pairs"
INDEX = "pairs.parquet"
SOURCE = "source.json"  # place of the images; outside the manifest, so that moving them changes no fingerprint

INDEX_SCHEMA = pa.schema([
    ("pair_id", pa.string()), ("row", pa.int64()), ("caption", pa.string()), ("label_0", pa.float64()),
    ("uid_0", pa.string()), ("uid_1", pa.string()), ("bytes_0", pa.int64()), ("bytes_1", pa.int64()),
    ("width_0", pa.int32()), ("height_0", pa.int32()), ("width_1", pa.int32()), ("height_1", pa.int32()),
    ("vote_share_0", pa.float64()),  # null without votes
])


@dataclass(frozen=True)
class PairSet:
    """The pairs that `smpo pairs` kept, in the order of the source. Only the index is in memory.

    Attributes:
        folder: of the artefact.
        fingerprint: later stages record it as the fingerprint of this input.
        index: a row per pair, columns as in INDEX_SCHEMA.
    """

    folder: Path
    fingerprint: str
    index: pa.Table

    @classmethod
    def open(cls, folder: Path | str) -> "PairSet":
        """The pair set in `folder`.

        Raises:
            DataError: the folder holds no complete pair set, or its index is damaged.
        """
        folder = Path(folder)
        artefact = Artefact.open(folder, stage=STAGE)
        index = pq.read_table(pa.BufferReader(artefact.read(INDEX)))
        if not index.schema.equals(INDEX_SCHEMA):
            raise DataError(f"{folder / INDEX} was made by an older version of smpo; delete {folder} and run "
                            "`smpo pairs` again")
        return cls(folder, artefact.fingerprint, index)

    def __len__(self) -> int:
        return self.index.num_rows

    @cached_property
    def pair_ids(self) -> tuple[str, ...]:
        """Name of each pair."""
        return tuple(self.index["pair_id"].to_pylist())

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """Prompt of each pair."""
        return tuple(self.index["caption"].to_pylist())

    @cached_property
    def uids(self) -> tuple[tuple[str, str], ...]:
        """Digests of the two images of each pair; equal images have equal digests."""
        return tuple(zip(self.index["uid_0"].to_pylist(), self.index["uid_1"].to_pylist(), strict=True))

    @cached_property
    def human_labels(self) -> Tensor:
        """label_0 of each pair, or the majority of votes without it: 0, 0.5, 1 or NaN, shape (N,), float64."""
        return torch.tensor(self.index["label_0"].to_numpy(), dtype=torch.float64)

    @cached_property
    def vote_shares_0(self) -> Tensor:
        """Share of people's votes for image 0 of each pair, in [0, 1], NaN without votes, shape (N,), float64."""
        return torch.tensor(self.index["vote_share_0"].to_numpy(), dtype=torch.float64)

    @cached_property
    def sizes(self) -> Tensor:
        """Width and height in px of image 0 and image 1 of each pair, upright, shape (N, 2, 2), int64."""
        columns = [self.index[f"{name}_{side}"].to_numpy() for side in (0, 1) for name in ("width", "height")]
        return torch.stack([torch.tensor(column, dtype=torch.int64) for column in columns], dim=1).view(-1, 2, 2)

    @cached_property
    def source(self) -> PairSource:
        """The reader of the images."""
        place = json.loads(Artefact.open(self.folder, stage=STAGE).read(SOURCE))
        try:
            return open_source(**place)
        except DataError as error:
            raise DataError(f"cannot read the images of {self.folder}: {error}; if they were moved, run `smpo pairs` "
                            "again with their new path and the same output folder") from error

    def iter_images(self, start: int = 0, stop: int | None = None) -> Iterator[PairImages]:
        """The encoded images of the pairs [start, stop) of the index, in bounded memory, checked by their digests.

        Raises:
            StaleError: a row of the source has changed since `smpo pairs` checked it.
        """
        part = self.index.slice(start, None if stop is None else max(0, stop - start))
        expected = part.select(["pair_id", "row", "caption", "uid_0", "uid_1"]).to_pylist()
        raw_pairs = self.source.read(_rows(part["row"].to_pylist()))
        for entry in expected:
            raw = next(raw_pairs, None)
            change = _change(raw, entry)
            if change is not None or raw is None:
                raise StaleError(f"pair '{entry['pair_id']}' (row {entry['row']} of the source) has changed since "
                                 f"{self.folder} was made: {change}; bring the old one back, or run `smpo pairs` into "
                                 "a new folder")
            yield PairImages(entry["pair_id"], entry["caption"], raw.image_0, raw.image_1)


def _rows(rows: list[int]) -> range | list[int]:
    """`rows` as a range if it has no gap, because readers are faster with a range."""
    return range(rows[0], rows[-1] + 1) if rows and rows[-1] - rows[0] + 1 == len(rows) else rows


def _change(raw: RawPair | None, entry: dict[str, Any]) -> str | None:
    """What has changed in a pair since it was checked; None if nothing has."""
    if raw is None or raw.row != entry["row"] or raw.problem is not None:
        return "it is no longer there" if raw is None or raw.problem is None else raw.problem[1]
    if raw.caption != entry["caption"]:
        return "the prompt is another"
    images = (raw.image_0, raw.image_1)
    changed = [side for side in (0, 1) if content_uid(images[side]) != entry[f"uid_{side}"]]
    return f"image {' and image '.join(map(str, changed))} is another" if changed else None
