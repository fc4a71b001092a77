"""Perceptual descriptors of images, and the search for near-duplicates among millions of them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_BITS = 63  # an 8 x 8 corner of the cosine transform without its mean
GREY_SIDE, LOW_SIDE, COLOUR_SIDE = 32, 8, 4
MAX_BITS = 4      # differing bits of near-duplicates; two unrelated hashes are as near with probability 4e-14
MAX_LEVELS = 24   # largest difference of the 4 x 4 mean colours, in grey levels of 255
EDGES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Descriptors:
    """Descriptors of n images: 56 bytes each.

    Attributes:
        hashes: shape (n,), uint64.
        colours: mean colours of a 4 x 4 grid, shape (n, 48), uint8.
    """

    hashes: np.ndarray
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, index: np.ndarray) -> "Descriptors":
        return Descriptors(self.hashes[index], self.colours[index])


def describe_image(image: Image.Image) -> tuple[int, np.ndarray]:
    """(hash, mean colours of shape (48,)) of an RGB image.

    The hash has one bit for each of the 63 lowest frequencies of the 32 x 32 grey image: whether it lies above their
    median. Scaling, recompression and small changes of brightness keep nearly all bits. The colours distinguish images
    of equal structure in different colours, and flat images, which a grey hash cannot.
    """
    grey = np.asarray(image.convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX), dtype=np.float64)
    low = fft.dctn(grey, norm="ortho")[:LOW_SIDE, :LOW_SIDE].ravel()[1:]
    above = low > np.median(low) + 1e-6  # the frequencies of a flat image are rounding errors: all bits 0
    bits = int(sum(1 << place for place in np.flatnonzero(above).tolist()))
    colours = np.asarray(image.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX), dtype=np.uint8)
    return bits, colours.ravel()


def near(a: Descriptors, b: Descriptors) -> np.ndarray:
    """Whether image i of `a` and image i of `b` are near-duplicates, shape (n,), bool."""
    bits = np.bitwise_count(a.hashes ^ b.hashes)
    levels = np.abs(a.colours.astype(np.int16) - b.colours).max(axis=1, initial=0)
    return (bits <= MAX_BITS) & (levels <= MAX_LEVELS)


def near_clusters(images: Descriptors) -> np.ndarray:
    """Cluster of each image, shape (n,), int: images that a chain of near-duplicates links have the same number.

    Two hashes that differ in at most MAX_BITS bits are equal in at least one of MAX_BITS + 1 stretches of the hash. So
    for each stretch the images are sorted by it, and only images that are equal in it are compared. Memory is linear
    in n.
    """
    n = len(images)
    labels = np.arange(n)
    cuts = np.linspace(0, HASH_BITS, MAX_BITS + 2).astype(int)
    for low, high in zip(cuts[:-1], cuts[1:], strict=True):
        stretch = (images.hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        labels = _join_runs(images, np.lexsort((images.hashes, stretch)), stretch, labels)
    return labels


def _join_runs(images: Descriptors, order: np.ndarray, stretch: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`labels` after joining near-duplicates among images of equal `stretch`; `order` sorts the images by it."""
    key, first, lag = stretch[order], np.arange(len(order)), 1
    edges: list[np.ndarray] = []
    waiting = 0
    while True:
        first = first[first + lag < len(order)]
        first = first[key[first] == key[first + lag]]  # an image at the end of its run has no partner at greater lags
        if not len(first):
            break
        a, b = order[first], order[first + lag]
        separate = labels[a] != labels[b]
        a, b = a[separate], b[separate]
        alike = near(images[a], images[b])
        edges.append(np.stack([a[alike], b[alike]]))
        waiting += int(alike.sum())
        if waiting > EDGES_AT_ONCE:
            labels, edges, waiting = _joined(labels, edges), [], 0
        lag += 1
    return _joined(labels, edges)


def _joined(labels: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
    """Connected components of `labels` and `edges` together."""
    a, b = np.concatenate([np.stack([np.arange(len(labels)), labels]), *edges], axis=1)
    graph = coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(len(labels), len(labels)))
    component = connected_components(graph, directed=False)[1]
    return np.unique(component, return_index=True)[1][component]  # numbered by its first image
