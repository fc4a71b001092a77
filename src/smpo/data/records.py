"""The records that pair sources yield, and what a source has to offer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class RawPair:
    """One row of a source, before any check.

    Attributes:
        row: position in the source, from 0.
        pair_id: name of the pair; unique in a sound source.
        caption: the prompt, as it is in the source.
        image_0: encoded bytes of the first image.
        image_1: encoded bytes of the second image.
        label_0: 1 = image 0 preferred, 0 = image 1 preferred, 0.5 = tie, NaN = unlabelled.
        uid_0: name of image 0: the source's own, or the content hash.
        uid_1: name of image 1.
        problem: (reason code, detail) where the source itself could not deliver the row; the other fields may be empty.
    """

    row: int
    pair_id: str
    caption: str
    image_0: bytes
    image_1: bytes
    label_0: float
    uid_0: str
    uid_1: str
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class PairImages:
    """The encoded images of one pair of a checked pair set."""

    pair_id: str
    caption: str
    image_0: bytes
    image_1: bytes


class PairSource(Protocol):
    """What a format reader offers. Its length is the number of rows; opening it reads no image."""

    has_labels: bool

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def fingerprint(self) -> str:
        """Digest that changes when the source's files change; cheap at any size."""
        ...

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`, in bounded memory."""
        ...


def broken_row(row: int, reason: str, detail: str, *, pair_id: str = "") -> RawPair:
    """A row that the source cannot deliver; it is dropped for `reason`."""
    return RawPair(row, pair_id or f"row-{row}", "", b"", b"", float("nan"), "", "", (reason, detail))
