"""Repeated images: one pass over the pair set, in blocks that are kept after an interruption."""

import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smpo.audit.perceptual import Descriptors, describe_image, near, near_clusters
from smpo.core.errors import DataError
from smpo.core.parts import Parts
from smpo.data.images import decode_image
from smpo.data.pair_set import PairSet

BLOCK_PAIRS = 1024
DECODED_AT_ONCE = 64
BLOCKS = "blocks"
EXAMPLES = 12


@dataclass(frozen=True)
class ImageFindings:
    """Repeated images.

    Attributes:
        images: number of different images, by name or content.
        reused: images that occur in more than one pair.
        near_pairs: pairs whose two images are near-duplicates of each other.
        near_pair_examples: some of their pair ids.
        clusters: groups of different images that are linked by near-duplicates.
        clustered_images: images in such groups.
        largest_cluster: number of images of the largest group.
        cluster_examples: first images of the largest groups, as (pair id, side), the largest group first.
    """

    images: int
    reused: int
    near_pairs: int
    near_pair_examples: tuple[str, ...]
    clusters: int
    clustered_images: int
    largest_cluster: int
    cluster_examples: tuple[tuple[tuple[str, int], ...], ...]


def image_numbers(pairs: PairSet) -> np.ndarray:
    """Number of each pair's two images, shape (n, 2), int; images of equal name have equal numbers."""
    names = pa.chunked_array([*pairs.index["uid_0"].chunks, *pairs.index["uid_1"].chunks], type=pa.string())
    codes = pc.dictionary_encode(names).combine_chunks().indices.to_numpy(zero_copy_only=False)
    return codes.astype(np.int64).reshape(2, -1).T


def find_repeats(
    pairs: PairSet, out: Path, *, progress: Callable[[int, int | None], None] | None = None
) -> ImageFindings:
    """Find repeated images of `pairs`. Each different image is decoded once; finished blocks in `out` are used again.

    Memory: 56 bytes an image, and a few decoded images at a time.

    Raises:
        DataError: an image cannot be decoded.
        StaleError: the source has changed since `smpo pairs`.
    """
    numbers = image_numbers(pairs)
    _, first = np.unique(numbers.ravel(), return_index=True)  # first place of each image, as 2 x pair + side
    blocks, parts = [], Parts.open(out)
    for start in range(0, len(pairs), BLOCK_PAIRS):
        stop = min(start + BLOCK_PAIRS, len(pairs))
        here = first[(first >= 2 * start) & (first < 2 * stop)]
        blocks.append(_block(pairs, np.sort(here), parts, (start, stop)))
        if progress is not None:
            progress(stop, len(pairs))
    places = np.sort(first)
    row = np.empty(len(first), dtype=np.int64)  # image number -> row of the descriptors
    row[numbers.ravel()[places]] = np.arange(len(places))
    images = Descriptors(np.concatenate([b.hashes for b in blocks]), np.concatenate([b.colours for b in blocks]))
    return _findings(pairs, images, row[numbers], places)


def remove_blocks(out: Path) -> None:
    """Remove the blocks of a finished audit."""
    shutil.rmtree(out / BLOCKS, ignore_errors=True)


def _findings(pairs: PairSet, images: Descriptors, rows: np.ndarray, places: np.ndarray) -> ImageFindings:
    alike = np.flatnonzero(near(images[rows[:, 0]], images[rows[:, 1]]))
    labels = near_clusters(images)
    clusters, sizes = np.unique(labels, return_counts=True)
    large = np.argsort(-sizes, kind="stable")
    large = large[sizes[large] > 1]
    examples = [
        tuple((pairs.pair_ids[places[i] // 2], int(places[i] % 2)) for i in np.flatnonzero(labels == clusters[c])[:4])
        for c in large[:EXAMPLES]
    ]
    return ImageFindings(
        images=len(images), reused=int((np.bincount(rows.ravel()) > 1).sum()), near_pairs=len(alike),
        near_pair_examples=tuple(pairs.pair_ids[i] for i in alike[:EXAMPLES]), clusters=len(large),
        clustered_images=int(sizes[large].sum()), largest_cluster=int(sizes[large[0]]) if len(large) else 0,
        cluster_examples=tuple(examples),
    )


def _block(pairs: PairSet, places: np.ndarray, parts: Parts, span: tuple[int, int]) -> Descriptors:
    """Descriptors of the images at `places` (2 x pair + side, ascending), read from `parts` where they exist."""
    name = f"{BLOCKS}/{span[0]:09d}.npz"
    if name in parts:
        stored = np.load(parts.folder / name)
        if len(stored["hashes"]) == len(places):
            return Descriptors(stored["hashes"], stored["colours"])
    described = list(_described(pairs, set(places.tolist()), *span))
    hashes = np.array([bits for bits, _ in described], dtype=np.uint64)
    colours = np.array([colour for _, colour in described], dtype=np.uint8).reshape(len(described), -1)
    buffer = io.BytesIO()
    np.savez(buffer, hashes=hashes, colours=colours)
    parts.write(name, buffer.getvalue())
    return Descriptors(hashes, colours)


def _described(pairs: PairSet, places: set[int], start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Descriptors of the images at `places` in the pairs [start, stop), in order; threads decode a few at a time."""
    encoded = (
        (pair.pair_id, data)
        for row, pair in enumerate(pairs.iter_images(start, stop), start=start)
        for side, data in enumerate((pair.image_0, pair.image_1)) if 2 * row + side in places
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while part := list(itertools.islice(encoded, DECODED_AT_ONCE)):
            yield from pool.map(_decoded, part)


def _decoded(named: tuple[str, bytes]) -> tuple[int, np.ndarray]:
    pair_id, data = named
    try:
        return describe_image(decode_image(data))
    except DataError as error:
        raise DataError(f"pair '{pair_id}': {error}") from error
