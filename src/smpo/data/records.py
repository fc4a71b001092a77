"""The records that pair sources yield, and what a source has to offer."""

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
        pair_id: name of the pair; unique in a sound source.
        caption: the prompt, as it is in the source.
        image_0: encoded bytes of the first image.
        image_1: encoded bytes of the second image.
        label_0: one person's choice: 1 = image 0 preferred, 0 = image 1 preferred, 0.5 = tie, NaN = unlabelled.
        uid_0: name of image 0, a hash of its bytes.
        uid_1: name of image 1.
        vote_share_0: share of several people's votes that image 0 got; None where nobody was counted.
        problem: (reason code, detail) where the source itself could not deliver the row; the other fields may be empty.
        place: where the row is, for people: file, and line, row or key.
        caption_from_image: the prompt was in the image's own metadata, for the source has none.
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
        """`label_0`, or where there is none what most votes say: 1, 0 or 0.5; NaN where there is neither."""
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
        split: of a source with several.
        columns: name of a field -> the source's own column.
        image_root: folder that relative paths of images start from; None is where the source is.
    """

    format: str
    split: str | None = None
    columns: Mapping[str, str] | None = None
    image_root: str | None = None

    def refuse_split(self, what: str) -> None:
        """Raise DataError where a split is asked of a source that has none."""
        if self.split is not None:
            raise DataError(f"format {self.format} has no splits, got split '{self.split}'; use one {what} per split")

    def images(self, beside: Path) -> ImageFiles:
        """Where paths of images lead, in a source that lies in the folder `beside`."""
        return ImageFiles(beside if self.image_root is None else Path(self.image_root).expanduser())


class PairSource(Protocol):
    """What a format reader offers. Its length is the number of rows; opening it reads no image."""

    has_labels: bool  # people's, as a choice or as votes; decided over all rows

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def describe(self) -> str:
        """What the reader understood of the source: its layout, the columns it reads and those it does not."""
        ...

    def fingerprint(self) -> str:
        """Digest of the contents of the source's files; see `smpo.data.files` for its cost."""
        ...

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`, in bounded memory."""
        ...


def broken_row(row: int, reason: str, detail: str, *, pair_id: str = "", place: str = "") -> RawPair:
    """A row that the source cannot deliver; it is dropped for `reason`."""
    name = pair_id or f"row-{row}"
    return RawPair(row, name, "", b"", b"", math.nan, "", "", problem=(reason, detail), place=place)
