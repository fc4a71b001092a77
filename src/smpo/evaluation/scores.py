"""Scores of an image set: one column per scorer, one row per image."""

import io
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smpo.core.artefacts import (
    Artefact,
    Status,
    begin,
    fingerprint,
    fingerprint_of,
    finish,
    hash_file,
    write_atomically,
)
from smpo.core.errors import ConfigError
from smpo.core.names import check_names
from smpo.core.processes import main_first, this_process, wait_for_all
from smpo.evaluation.options import COLUMNS
from smpo.rewards.blocks import Progress, ScoreBlocks, fill
from smpo.rewards.options import ScoringOptions
from smpo.rewards.scorer import Scorer
from smpo.rewards.scoring import Request
from smpo.sampling.image_set import ImageSet, read_image

STAGE = "evaluate"
TABLE = "scores.parquet"
PARTS = "parts"  # finished blocks of an interrupted run, by scorer


@dataclass(frozen=True)
class EvaluationReport:
    """What `evaluate_images` did: `scored` names the scorers it had to run; `skipped` says that all scores existed."""

    folder: Path
    num_images: int
    scored: tuple[str, ...]
    skipped: bool
    seconds: float
    fingerprint: str


@dataclass(frozen=True)
class ImageScores:
    """A complete evaluation; entry i of every tuple and column belongs to image i.

    Attributes:
        prompts: prompt of each image.
        seeds: seed of each image.
        files: file of each image, relative to the image set's folder.
        images_per_prompt: how many consecutive images share a prompt.
        scores: scorer -> shape (n,), float32.
        units: scorer -> unit of its scores.
        details: scorer -> one {attribute: right} per image; only scorers that judge attributes are here.
        fingerprint: hash of the image set, the scorers and the scores.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    files: tuple[str, ...]
    images_per_prompt: int
    scores: Mapping[str, np.ndarray]
    units: Mapping[str, str]
    details: Mapping[str, tuple[dict[str, bool], ...]]
    fingerprint: str

    @classmethod
    def open(cls, folder: Path) -> "ImageScores":
        """The evaluation in `folder`; DataError where it is missing, unfinished or damaged."""
        artefact = Artefact.open(folder, stage=STAGE)
        results, table = artefact.results, pq.read_table(pa.BufferReader(artefact.read(TABLE))).to_pydict()
        names = results["scorers"]
        details = {
            name: tuple(json.loads(line) for line in artefact.read(_details_file(name)).decode().splitlines())
            for name in names if _details_file(name) in artefact.seals
        }
        return cls(
            prompts=tuple(table["prompt"]), seeds=tuple(table["seed"]), files=tuple(table["file"]),
            images_per_prompt=results["images_per_prompt"],
            scores={name: np.asarray(table[name], dtype=np.float32) for name in names},
            units={name: about["units"] for name, about in names.items()},
            details=details, fingerprint=artefact.fingerprint,
        )

    def rows(self, scorer: str) -> np.ndarray:
        """Scores by prompt, shape (prompts, images per prompt)."""
        return self.scores[scorer].reshape(-1, self.images_per_prompt)


def evaluate_images(images: ImageSet, scorers: Mapping[str, Scorer], out: Path, *, store: Path | None = None,
                    options: ScoringOptions | None = None, progress: Progress | None = None) -> EvaluationReport:
    """Score all images; the report of the complete score table in `out`. Scores of an interrupted run are kept.

    All scorers share one pass over the images. Processes that were started together share the work (see `fill`).

    Args:
        images: a complete image set.
        scorers: column name -> scorer.
        out: folder of the evaluation.
        store: folder of finished columns; other evaluations of the same images by the same scorers use them again.
        options: sizes of batches and blocks, number of workers.
        progress: see `Progress`.

    Raises:
        ConfigError: there are no scorers, or a name cannot be a column.
        StaleError: `out` holds scores of other images or other scorers.
        DataError: a scorer returned a wrong shape or a score that is not finite; an image cannot be read.
        ProcessError: another process ended early.
    """
    started = time.monotonic()
    options = options or ScoringOptions()
    if not scorers:
        raise ConfigError("no scorers were given; name at least one")
    check_names(scorers, what="scorer", reserved=COLUMNS)
    settings = {"scorers": {name: scorer.identity() for name, scorer in scorers.items()}}
    inputs = {"images": images.fingerprint}
    status = main_first("open the score table", lambda: begin(out, stage=STAGE, settings=settings, inputs=inputs))
    columns = {
        name: ScoreBlocks(_column_folder(name, scorer, images, out=out, store=store), images.files, options.block_size)
        for name, scorer in scorers.items()
    }
    missing: tuple[str, ...] = ()
    if status is not Status.DONE:
        main_first("check the images", images.check)
        missing = tuple(name for name, column in columns.items() if column.missing())
        fill(columns, scorers, lambda start, stop: _requests(images, start, stop), decode=read_image, options=options,
             progress=progress)
    if this_process().is_main:
        if status is not Status.DONE:
            _write_table(images, scorers, columns, out)
        shutil.rmtree(out / PARTS, ignore_errors=True)
    wait_for_all("finish the score table")
    return EvaluationReport(
        out, len(images), missing, skipped=status is Status.DONE, seconds=time.monotonic() - started,
        fingerprint=fingerprint_of(out, stage=STAGE),
    )


def _column_folder(name: str, scorer: Scorer, images: ImageSet, *, out: Path, store: Path | None) -> Path:
    """Folder of the blocks of a scorer's column: in `out` until the table is finished, or permanently in the store."""
    if store is None:
        return out / PARTS / name
    return store / "scores" / images.fingerprint[:32] / fingerprint(scorer.identity())[:32]


def _requests(images: ImageSet, start: int, stop: int) -> Iterator[Sequence[Request]]:
    for index in range(start, stop):
        file = images.files[index]
        yield [Request(f"image {index}", file, images.prompts[index], images.data(index))]


def _write_table(
    images: ImageSet, scorers: Mapping[str, Scorer], columns: Mapping[str, ScoreBlocks], out: Path
) -> None:
    """Join the columns into one table and finish the artefact."""
    n = len(images)
    values = (range(n), images.prompts, images.seeds, images.files)
    table = dict(zip(COLUMNS, (pa.array(list(column)) for column in values), strict=True))
    about, files = {}, [TABLE]
    for name, scorer in scorers.items():
        scores, verdicts = columns[name].joined()
        table[name] = pa.array(scores[:, 0].numpy())
        about[name] = {"units": scorer.units, "bounds": list(scorer.bounds) if scorer.bounds else None,
                       "median": float(np.median(scores.numpy()))}
        if verdicts is not None:
            lines = (json.dumps(of_image) + "\n" for (of_image,) in verdicts)
            write_atomically(out / _details_file(name), "".join(lines))
            files.append(_details_file(name))
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer)
    write_atomically(out / TABLE, buffer.getvalue())
    finish(out, {
        "num_images": n, "images_per_prompt": images.images_per_prompt, "scorers": about,
        "sha256": hash_file(out / TABLE),
    }, files=files)


def _details_file(scorer: str) -> str:
    return f"details-{scorer}.jsonl"
