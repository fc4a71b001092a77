"""The records of pairs, and the protocol of their sources."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from smpo.core.errors import DataError
from smpo.data.row_images import ImageFiles


@dataclass(frozen=True)
class RawPair:
    """One row of a source, before any check.

    Attributes:
        row: position in the source, from 0.
        pair_id: name of the pair; it should be unique in the source.
        caption: the prompt, unchanged.
        image_0: encoded bytes of the first image.
        image_1: encoded bytes of the second image.
        label_0: one person's choice: 1 = image 0 preferred, 0 = image 1 preferred, 0.5 = tie, NaN = unlabelled.
        uid_0: digest of image 0, see `smpo.data.images.content_uid`.
        uid_1: digest of image 1.
        vote_share_0: share of people's votes for image 0; None without votes.
        problem: (reason code, detail) if the row cannot be read; then the other fields may be empty.
        place: place of the row, for people: file, and line, row or key.
        caption_from_image: the prompt is from the image's metadata, because the source has none.
    """

    row: int
    pair_id: str
    caption: str
    image_0: bytes
    image_1: bytes
    label_0: float
    uid_0: str
    uid_1: str
    vote_share_0: float | None = None
    problem: tuple[str, str] | None = None
    place: str = ""
    caption_from_image: bool = False

    @property
    def human_label(self) -> float:
        """`label_0`, or without it the majority of the votes: 1, 0 or 0.5; NaN without both."""
        if self.vote_share_0 is None or not math.isnan(self.label_0):
            return self.label_0
        return 0.5 if self.vote_share_0 == 0.5 else float(self.vote_share_0 > 0.5)


@dataclass(frozen=True)
class PairImages:
    """The encoded images of one pair of a checked pair set."""

    pair_id: str
    caption: str
    image_0: bytes
    image_1: bytes


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read.

    Attributes:
        format: a name in `FORMATS`.
        split: name of the split, for a source with several.
        columns: field -> the source's column.
        image_root: folder to which paths of images are relative; None is the folder of the source.
    """

    format: str
    split: str | None = None
    columns: Mapping[str, str] | None = None
    image_root: str | None = None

    def refuse_split(self, what: str) -> None:
        """Raise DataError if a split is given; the source has none."""
        if self.split is not None:
            raise DataError(f"format {self.format} has no splits, got split '{self.split}'; use one {what} per split")

    def images(self, beside: Path) -> ImageFiles:
        """The reader of image files for a source in the folder `beside`."""
        return ImageFiles(beside if self.image_root is None else Path(self.image_root).expanduser())


class PairSource(Protocol):
    """The reader of one format. Its length is the number of rows; opening it reads no image."""

    has_labels: bool  # whether any row may have a person's choice or votes

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def describe(self) -> str:
        """The layout of the source, with the columns that are read and those that are ignored, for people."""
        ...

    def fingerprint(self) -> str:
        """Digest of the contents of the source's files; `smpo.data.files` tells how long it takes."""
        ...

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`, in bounded memory."""
        ...


def broken_row(row: int, reason: str, detail: str, *, pair_id: str = "", place: str = "") -> RawPair:
    """A row that cannot be read and is dropped for `reason`."""
    name = pair_id or f"row-{row}"
    return RawPair(row, name, "", b"", b"", math.nan, "", "", problem=(reason, detail), place=place)
