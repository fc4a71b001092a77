"""Scores of an image set: one column per scorer, one row per image."""

import io
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from smpo.artefacts import Status, begin, fingerprint_of, finish, hash_file, read_manifest, write_atomically
from smpo.errors import ConfigError, DataError
from smpo.generation import ImageSet
from smpo.rewards.scorer import Scorer

STAGE = "evaluate"
TABLE = "scores.parquet"
COLUMNS = ("index", "prompt", "seed", "file")
PARTS = "parts"  # finished columns of an interrupted run
Progress = Callable[[str, int, int], None]
"""Called with (scorer, images done, images in all)."""


@runtime_checkable
class DetailedScorer(Protocol):
    """A scorer that can also say what is right and what is wrong."""

    def details(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[dict[str, bool]]:
        """Attribute name -> right or wrong, one dict per image."""


@dataclass(frozen=True)
class EvaluationReport:
    """What `evaluate_images` did; `skipped` says that all scores were there, `scored` names those that were not."""

    folder: Path
    num_images: int
    scored: tuple[str, ...]
    skipped: bool
    seconds: float
    fingerprint: str


@dataclass(frozen=True)
class ScoreTable:
    """A complete evaluation; entry i of every tuple and column belongs to image i.

    Attributes:
        prompts: of each image.
        seeds: of each image.
        files: relative to the image set's folder.
        images_per_prompt: consecutive images that share a prompt.
        scores: scorer -> shape (n,), float32.
        units: scorer -> unit of its scores.
        details: scorer -> one {attribute: right} per image; only scorers that give them.
        fingerprint: of the image set, the scorers and the scores.
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
    def open(cls, folder: Path) -> "ScoreTable":
        """The evaluation in `folder`; DataError when it is missing, unfinished or something else."""
        results = read_manifest(folder, stage=STAGE)["results"]
        table = pq.read_table(folder / TABLE).to_pydict()
        names = results["scorers"]
        details = {
            name: tuple(json.loads(line) for line in path.read_text().splitlines())
            for name in names if (path := folder / f"details-{name}.jsonl").exists()
        }
        return cls(
            *(tuple(table[key]) for key in ("prompt", "seed", "file")),
            images_per_prompt=results["images_per_prompt"],
            scores={name: np.asarray(table[name], dtype=np.float32) for name in names},
            units={name: about["units"] for name, about in names.items()},
            details=details, fingerprint=fingerprint_of(folder, stage=STAGE),
        )

    def rows(self, scorer: str) -> np.ndarray:
        """Scores by prompt, shape (prompts, images per prompt)."""
        return self.scores[scorer].reshape(-1, self.images_per_prompt)


def evaluate_images(
    images: ImageSet, scorers: Mapping[str, Scorer], out: Path, *, batch_size: int = 32,
    progress: Progress | None = None,
) -> EvaluationReport:
    """The report of a complete score table in `out`; columns that an interrupted run finished are kept.

    Args:
        images: a complete image set.
        scorers: column name -> scorer.
        out: folder of the evaluation.
        batch_size: images per call of a scorer; changes the speed only.
        progress: called after every batch.

    Raises:
        ConfigError: no scorers, or a name that cannot be a column.
        StaleError: `out` holds scores of other images or other scorers.
        DataError: a scorer returned a wrong shape or a non-finite score; an image cannot be read.
    """
    started = time.monotonic()
    _check_names(scorers)
    settings = {"scorers": {name: scorer.identity() for name, scorer in scorers.items()}}
    status = begin(out, stage=STAGE, settings=settings, inputs={"images": images.fingerprint})
    missing = [] if status is Status.DONE else [n for n in scorers if not _part(out, n).exists()]
    for name in missing:
        _score(name, scorers[name], images, out=out, batch_size=batch_size, progress=progress)
    if status is not Status.DONE:
        _write_table(images, scorers, out)
    print_of = fingerprint_of(out, stage=STAGE)
    seconds = time.monotonic() - started
    return EvaluationReport(out, len(images), tuple(missing), status is Status.DONE, seconds, print_of)


def _check_names(scorers: Mapping[str, Scorer]) -> None:
    if not scorers:
        raise ConfigError("no scorers were given; name at least one")
    for name in scorers:
        if name in COLUMNS or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigError(
                f"scorer name {name!r} cannot be a column: use letters, digits, '_', '.' and '-', none of {COLUMNS}"
            )


def _score(
    name: str, scorer: Scorer, images: ImageSet, *, out: Path, batch_size: int, progress: Progress | None
) -> None:
    """Write the column of one scorer, and its details where it gives them."""
    column, details = np.empty(len(images), dtype=np.float32), []
    for start in range(0, len(images), batch_size):
        stop = min(start + batch_size, len(images))
        pictures, prompts = images.images(start, stop), images.prompts[start:stop]
        column[start:stop] = _checked(name, scorer(pictures, prompts), images.files[start:stop])
        if isinstance(scorer, DetailedScorer):
            details += scorer.details(pictures, prompts)
        if progress is not None:
            progress(name, stop, len(images))
    if isinstance(scorer, DetailedScorer):
        lines = (json.dumps({key: bool(right) for key, right in row.items()}) + "\n" for row in details)
        write_atomically(out / f"details-{name}.jsonl", "".join(lines))
    buffer = io.BytesIO()
    np.save(buffer, column)
    write_atomically(_part(out, name), buffer.getvalue())


def _checked(name: str, scores: torch.Tensor, files: Sequence[str]) -> np.ndarray:
    scores = scores.detach().float().cpu()
    if scores.shape != (len(files),):
        raise DataError(f"scorer {name!r} returned shape {tuple(scores.shape)}, expected ({len(files)},); correct it")
    if not torch.isfinite(scores).all():
        first = int((~torch.isfinite(scores)).nonzero()[0])
        raise DataError(f"scorer {name!r} gave {float(scores[first])} for {files[first]}; check the scorer's dtype")
    return scores.numpy()


def _part(out: Path, name: str) -> Path:
    return out / PARTS / f"{name}.npy"


def _write_table(images: ImageSet, scorers: Mapping[str, Scorer], out: Path) -> None:
    """Join the columns into one table, finish the artefact, and remove the parts."""
    n = len(images)
    values = (range(n), images.prompts, images.seeds, images.files)
    fixed = dict(zip(COLUMNS, (pa.array(list(column)) for column in values), strict=True))
    scores = {name: np.load(_part(out, name)) for name in scorers}
    buffer = io.BytesIO()
    pq.write_table(pa.table({**fixed, **{name: pa.array(column) for name, column in scores.items()}}), buffer)
    write_atomically(out / TABLE, buffer.getvalue())
    about = {
        name: {"units": scorer.units, "bounds": list(scorer.bounds) if scorer.bounds else None,
               "median": float(np.median(scores[name]))}
        for name, scorer in scorers.items()
    }
    finish(out, {
        "num_images": n, "images_per_prompt": images.images_per_prompt, "scorers": about,
        "sha256": hash_file(out / TABLE),
    })
    shutil.rmtree(out / PARTS)
