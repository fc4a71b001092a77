"""Bytes on disk, known before they are written."""

import io

import numpy as np

from smpo.cost.architecture import Architecture
from smpo.preparation.cache import BLOCK_PAIRS, BLOCK_PROMPTS
from smpo.preparation.options import CacheOptions
from smpo.training.sources.cached import block_size
from smpo.training.sources.order import ExampleOrder


def npy_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Size of the .npy file of an array, header included."""
    header = io.BytesIO()
    kind = np.dtype(dtype)
    described = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.tell() + int(np.prod(shape, dtype=np.int64)) * kind.itemsize


def latents_bytes(architecture: Architecture, options: CacheOptions, *, num_pairs: int) -> int:
    """The cache's moments and sizes of all views of all images, exactly."""
    views = (2, options.views.num_views)
    moments = (*views, *architecture.latent_shape(options.resolution))
    each = ((moments, options.dtype), (moments, options.dtype), ((*views, 6), "int32"))
    return sum(_blocks_bytes(num_pairs, BLOCK_PAIRS, shape, dtype) for shape, dtype in each)


def prompts_bytes(architecture: Architecture, options: CacheOptions, *, num_prompts: int) -> int:
    """The cache's embeddings of `num_prompts` unique prompts and of the empty one, exactly."""
    shapes = architecture.prompt_shapes().values()
    return sum(_blocks_bytes(1 + num_prompts, BLOCK_PROMPTS, shape, options.dtype) for shape in shapes)


def stored_bytes(architecture: Architecture, options: CacheOptions, order: ExampleOrder, *, num_examples: int) -> int:
    """What `smpo invert` stores of `num_examples` examples, exactly."""
    sides = 2 if order.winner_share is None else 1
    latents = (sides, *architecture.latent_shape(options.resolution))
    each = ((latents, options.dtype), ((), "int64"), ((sides,), "float32"))
    return sum(_blocks_bytes(num_examples, block_size(order), shape, dtype) for shape, dtype in each)


def _blocks_bytes(rows: int, block: int, shape: tuple[int, ...], dtype: str) -> int:
    """Files of at most `block` rows of `shape` each."""
    whole, rest = divmod(rows, block)
    last = npy_bytes((rest, *shape), dtype) if rest else 0
    return whole * npy_bytes((block, *shape), dtype) + last
