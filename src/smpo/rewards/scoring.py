"""One pass over many images for many scorers: worker processes decode and preprocess, this process runs the models.

The work comes in rows (a pair is a row of two images, a generated image a row of one) and is scored in blocks of rows.
Within a block each image is decoded and scored once for a prompt, however often it occurs, and no batch crosses the end
of a block. So the batches, and with them every bit of a score, depend on the rows, `block_size` and `batch_size` alone:
not on the number of workers or processes, and not on an interruption between blocks.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smpo.core.artefacts import fingerprint
from smpo.core.errors import DataError
from smpo.core.signals import left_to_parent
from smpo.rewards.options import ScoringOptions
from smpo.rewards.scorer import Preprocessing, Scorer

MAX_WORKERS = 8  # unless `workers` is set

Layout = tuple[tuple[int, ...], ...]
"""For each row of a block, the positions of its images among the block's requests."""
Verdicts = Sequence[Sequence[dict[str, bool]]]
"""For each row and image of it, which attributes are right."""


@dataclass(frozen=True)
class Request:
    """One image to be scored for one prompt.

    Attributes:
        name: of the image, for error messages.
        key: equal keys are equal images.
        prompt: the prompt that it is scored for.
        data: the argument of `decode`, e.g. encoded bytes or a path.
    """

    name: str
    key: str
    prompt: str
    data: Any


@runtime_checkable
class DetailedScorer(Protocol):
    """A scorer that can also tell which attributes of the prompt an image has."""

    def verdicts(self, inputs: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        """Attribute name -> right or wrong, one dict per preprocessed image."""
        ...


@dataclass(frozen=True)
class ScoredBlock:
    """The scores of a block of rows.

    Attributes:
        number: of the block.
        scores: scorer -> shape (rows, images of a row), float32.
        verdicts: of the scorers that give any.
    """

    number: int
    scores: dict[str, Tensor]
    verdicts: dict[str, Verdicts]


Rows = Callable[[int, int], Iterable[Sequence[Request]]]
"""(start, stop) -> the images of each of the rows [start, stop), streamed."""


def score_blocks(rows: Rows, blocks: Mapping[int, range], scorers: Mapping[str, Scorer], *,
                 decode: Callable[[Any], Image.Image], options: ScoringOptions,
                 on_batch: Callable[[int], None] | None = None) -> Iterator[ScoredBlock]:
    """The scored blocks, in order. Memory is that of a few batches, whatever the number of rows.

    Scorers whose preprocessings have the same description share the preprocessed images.

    Args:
        rows: the work.
        blocks: number -> rows of each block, ascending; neighbouring blocks are read in one go.
        scorers: name -> scorer.
        decode: from a request's data to an image of mode RGB; picklable, since worker processes run it.
        options: batch size and workers.
        on_batch: called after each batch with the number of its images.

    Raises:
        DataError: an image cannot be decoded; a scorer returned a wrong shape or a score that is not finite.
    """
    groups = {name: fingerprint(scorer.preprocessing.describe()) for name, scorer in scorers.items()}
    preprocessings = {groups[name]: scorer.preprocessing for name, scorer in scorers.items()}
    loader = _loader(_batches(rows, blocks, options.batch_size), _Preparation(decode, preprocessings), options)
    collected = _Collected()
    for batch in loader:
        if batch.problem:
            raise DataError(batch.problem)
        for name, scorer in scorers.items():
            collected.add(name, scorer, batch.inputs[groups[name]], batch)
        if on_batch is not None:
            on_batch(len(batch.prompts))
        if batch.layout is not None:
            yield collected.block(batch.block, batch.layout)
            collected = _Collected()


def num_workers(options: ScoringOptions) -> int:
    """Decoding processes of this process: `workers`, or its share of the machine's cores, at most MAX_WORKERS."""
    if options.workers is not None:
        return options.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


@dataclass(frozen=True)
class _Batch:
    """Encoded images; the last batch of a block brings the layout of its rows."""

    block: int
    requests: tuple[Request, ...]
    layout: Layout | None = None


def _batches(rows: Rows, blocks: Mapping[int, range], batch_size: int) -> Iterator[_Batch]:
    for numbers in _runs(list(blocks)):
        stream = iter(rows(blocks[numbers[0]].start, blocks[numbers[-1]].stop))
        for number in numbers:
            yield from _block_batches(number, itertools.islice(stream, len(blocks[number])), batch_size)


def _runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Runs of consecutive numbers."""
    for _, run in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        yield [number for _, number in run]


def _block_batches(number: int, rows: Iterable[Sequence[Request]], batch_size: int) -> Iterator[_Batch]:
    """The block's batches, each image in them once for a prompt."""
    waiting: list[Request] = []
    places: dict[tuple[str, str], int] = {}
    layout = []
    for row in rows:
        for request in row:
            key = (request.key, request.prompt)
            if key in places:
                continue
            if len(waiting) == batch_size:  # only now, so that the batch which brings the layout is never empty
                yield _Batch(number, tuple(waiting))
                waiting = []
            places[key] = len(places)
            waiting.append(request)
        layout.append(tuple(places[request.key, request.prompt] for request in row))
    yield _Batch(number, tuple(waiting), tuple(layout))


@dataclass(frozen=True)
class _Prepared:
    """A batch as it comes from a worker: what was a request's data is now each group's stacked inputs (B, ...)."""

    block: int
    names: tuple[str, ...]
    prompts: tuple[str, ...]
    layout: Layout | None
    inputs: dict[str, Tensor]
    problem: str | None = None

    def pin_memory(self) -> "_Prepared":
        """The same in page-locked memory, from where a GPU copies while it computes; the loader calls this."""
        return replace(self, inputs={group: tensor.pin_memory() for group, tensor in self.inputs.items()})


@dataclass(frozen=True)
class _Preparation(Dataset):
    """What a worker does with a batch; the loader's "index" is the batch itself, so reading stays in one process."""

    decode: Callable[[Any], Image.Image]
    preprocessings: Mapping[str, Preprocessing]

    def __getitem__(self, batch: _Batch) -> _Prepared:
        names, prompts = zip(*((request.name, request.prompt) for request in batch.requests), strict=True)
        prepared = _Prepared(batch.block, names, prompts, batch.layout, {})
        inputs: dict[str, list[Tensor]] = {group: [] for group in self.preprocessings}
        for request in batch.requests:
            try:
                image = self.decode(request.data)
                for group, preprocess in self.preprocessings.items():
                    inputs[group].append(preprocess(image))
            except DataError as error:  # returned, since the loader would wrap a worker's traceback around it
                return replace(prepared, problem=f"{request.name}: {error}")
        return replace(prepared, inputs={group: torch.stack(tensors) for group, tensors in inputs.items()})


def _loader(batches: Iterator[_Batch], preparation: _Preparation, options: ScoringOptions) -> DataLoader:
    """Prepared batches, in order."""
    return DataLoader(preparation, batch_size=None, sampler=batches, num_workers=num_workers(options),
                      worker_init_fn=left_to_parent, pin_memory=torch.cuda.is_available())


@dataclass
class _Collected:
    """The scores of a block's requests, batch by batch."""

    scores: dict[str, list[Tensor]] = field(default_factory=dict)
    verdicts: dict[str, list[dict[str, bool]]] = field(default_factory=dict)

    def add(self, name: str, scorer: Scorer, inputs: Tensor, batch: _Prepared) -> None:
        """Score one batch."""
        scores = _checked(name, scorer.score(inputs, batch.prompts), batch.names)
        self.scores.setdefault(name, []).append(scores)
        if isinstance(scorer, DetailedScorer):
            self.verdicts.setdefault(name, []).extend(scorer.verdicts(inputs, batch.prompts))

    def block(self, number: int, layout: Layout) -> ScoredBlock:
        """The block, its scores laid out by rows."""
        places = torch.tensor(layout)
        scores = {name: torch.cat(parts)[places] for name, parts in self.scores.items()}
        verdicts: dict[str, Verdicts] = {
            name: [[given[place] for place in row] for row in layout] for name, given in self.verdicts.items()
        }
        return ScoredBlock(number, scores, verdicts)


def _checked(name: str, scores: Tensor, images: Sequence[str]) -> Tensor:
    scores = scores.detach().float().cpu()
    if scores.shape != (len(images),):
        raise DataError(f"scorer '{name}' returned shape {tuple(scores.shape)}, expected ({len(images)},); correct it")
    finite = torch.isfinite(scores)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise DataError(f"scorer '{name}' gave {scores[first].item()} for {images[first]}; check its weights and dtype "
                        "(float16 overflows above 65504)")
    return scores
