"""Stage `score`: a reward model's score of both images of each pair, in blocks that survive any interruption."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from smpo.artefacts import Status, begin, fingerprint_of, finish, read_manifest, write_atomically
from smpo.checks import check_positive
from smpo.data.images import decode_image
from smpo.data.pair_set import PairSet
from smpo.errors import DataError, StaleError
from smpo.rewards.scorer import Scorer

STAGE = "score"
BLOCK_SCHEMA = pa.schema([("pair_id", pa.string()), ("score_0", pa.float32()), ("score_1", pa.float32())])


@dataclass(frozen=True)
class ScoreReport:
    """What the stage did.

    Attributes:
        folder: the artefact.
        pairs: number of pairs scored.
        blocks: number of block files.
        computed: blocks that this call computed; the others were there.
        scorer: name of the scorer.
        score_range: (min, max) over all scores, in the scorer's units.
    """

    folder: Path
    pairs: int
    blocks: int
    computed: int
    scorer: str
    score_range: tuple[float, float]


@dataclass(frozen=True)
class ScoreTable:
    """The scores of a pair set, in its order.

    Attributes:
        folder: the artefact.
        fingerprint: what later stages record as their input.
        pairs_fingerprint: of the pair set that was scored.
        identity: which scorer, weights, precision and preprocessing the numbers come from.
        table: columns pair_id, score_0, score_1.
    """

    folder: Path
    fingerprint: str
    pairs_fingerprint: str
    identity: dict[str, Any]
    table: pa.Table

    @classmethod
    def open(cls, folder: Path | str) -> "ScoreTable":
        """The score table in `folder`.

        Raises:
            DataError: the folder holds no complete score table.
        """
        folder = Path(folder)
        manifest = read_manifest(folder, stage=STAGE)
        blocks = [pq.read_table(file, schema=BLOCK_SCHEMA) for file in _block_files(folder)]
        return cls(folder, fingerprint_of(folder, stage=STAGE), manifest["inputs"]["pairs"],
                   manifest["settings"]["scorer"], pa.concat_tables(blocks))

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def pair_ids(self) -> tuple[str, ...]:
        """Name of each pair."""
        return tuple(self.table["pair_id"].to_pylist())

    @cached_property
    def score_0(self) -> Tensor:
        """Score of image 0 of each pair, shape (N,), float32."""
        return torch.tensor(self.table["score_0"].to_numpy())

    @cached_property
    def score_1(self) -> Tensor:
        """Score of image 1 of each pair, shape (N,), float32."""
        return torch.tensor(self.table["score_1"].to_numpy())


def describe(report: ScoreReport) -> str:
    """The report in one line for a terminal."""
    low, high = report.score_range
    done = f"{report.computed} of {report.blocks} blocks computed" if report.computed else "already done"
    return f"{report.pairs} pairs scored by {report.scorer} in [{low:.6g}, {high:.6g}] in {report.folder} ({done})"


def score_pairs(pairs: PairSet, scorer: Scorer, out: Path, *, batch_size: int = 32, block_size: int = 256,
                progress: Callable[[int, int | None], None] | None = None) -> ScoreReport:
    """The report on the score table that this writes to `out`; an interrupted call is continued, block by block.

    Within a block each image is scored once for a prompt, however often it occurs.

    Args:
        pairs: the pair set.
        scorer: (images, prompts) -> (B,) float32.
        out: folder of the artefact.
        batch_size: images per call of the scorer.
        block_size: pairs per file, which is what an interruption can lose.
        progress: called with (pairs done, pairs).

    Raises:
        DataError: a score is not finite.
        StaleError: `out` was made from other pairs or with another scorer.
    """
    check_positive(batch_size=batch_size, block_size=block_size)
    out, identity = Path(out), scorer.identity()
    status = begin(out, stage=STAGE, settings={"scorer": identity}, inputs={"pairs": pairs.fingerprint})
    computed = 0
    if status is not Status.DONE:
        starts = range(0, len(pairs), block_size)
        for number, start in enumerate(starts):
            stop = min(start + block_size, len(pairs))
            if not _is_whole(_block_file(out, number), pairs.pair_ids[start:stop]):
                _write_block(_block_file(out, number), pairs.pair_ids[start:stop],
                             _score_block(pairs, scorer, start, stop, batch_size))
                computed += 1
            if progress is not None:
                progress(stop, len(pairs))
        finish(out, _summarise(out, len(starts)))
    results = read_manifest(out, stage=STAGE)["results"]
    return ScoreReport(out, results["pairs"], len(_block_files(out)), computed, identity["name"],
                       tuple(results["score_range"]))


def _block_file(folder: Path, number: int) -> Path:
    return folder / f"block-{number:05d}.parquet"


def _block_files(folder: Path) -> list[Path]:
    """The blocks of a finished table, in order."""
    return sorted(folder.glob("block-*.parquet"), key=lambda file: (len(file.name), file.name))


def _is_whole(file: Path, pair_ids: tuple[str, ...]) -> bool:
    """Whether `file` holds just these pairs; it does not if it was begun with another block size."""
    return file.exists() and tuple(pq.read_table(file, columns=["pair_id"])["pair_id"].to_pylist()) == pair_ids


def _score_block(pairs: PairSet, scorer: Scorer, start: int, stop: int, batch_size: int) -> list[tuple[float, float]]:
    """The two scores of each of the pairs [start, stop); they depend on nothing else, so resuming is exact."""
    scores: dict[tuple[str, str], float] = {}  # (image, prompt) -> score
    waiting: dict[tuple[str, str], bytes] = {}
    names: dict[tuple[str, str], str] = {}     # for error messages
    keys = []
    for uids, pair in zip(pairs.uids[start:stop], pairs.iter_images(start, stop), strict=True):
        keys.append(tuple((uid, pair.caption) for uid in uids))
        for key, data in zip(keys[-1], (pair.image_0, pair.image_1), strict=True):
            names.setdefault(key, pair.pair_id)
            if key not in scores and key not in waiting:
                waiting[key] = data
            if len(waiting) == batch_size:
                scores |= _score_batch(scorer, waiting, names)
                waiting = {}
    if waiting:
        scores |= _score_batch(scorer, waiting, names)
    return [(scores[key_0], scores[key_1]) for key_0, key_1 in keys]


def _score_batch(scorer: Scorer, waiting: dict[tuple[str, str], bytes], names: dict) -> dict[tuple[str, str], float]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = list(pool.map(decode_image, waiting.values()))
    values = scorer(images, [prompt for _, prompt in waiting])
    if tuple(values.shape) != (len(images),):
        raise ValueError(f"a scorer returns shape ({len(images)},), got {tuple(values.shape)} from {scorer.name}")
    finite = torch.isfinite(values)
    if not torch.all(finite):
        index = int((~finite).nonzero()[0])
        raise DataError(f"{scorer.name} gives {values[index].item()} for pair '{names[list(waiting)[index]]}'; "
                        "check the scorer's weights and dtype (float16 overflows above 65504)")
    return dict(zip(waiting, values.float().tolist(), strict=True))


def _write_block(file: Path, pair_ids: tuple[str, ...], scores: list[tuple[float, float]]) -> None:
    score_0, score_1 = zip(*scores, strict=True)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"pair_id": pair_ids, "score_0": score_0, "score_1": score_1}, schema=BLOCK_SCHEMA), sink)
    write_atomically(file, sink.getvalue().to_pybytes())


def _summarise(folder: Path, blocks: int) -> dict[str, Any]:
    """Results over all blocks; leftovers of killed writes and of larger block numbers are removed."""
    keep = [_block_file(folder, number) for number in range(blocks)]
    for file in folder.glob("block-*"):
        if file not in keep:
            file.unlink()
    tables = pa.concat_tables([pq.read_table(file) for file in keep])
    scores = torch.tensor([tables["score_0"].to_pylist(), tables["score_1"].to_pylist()], dtype=torch.float64)
    return {"pairs": scores.shape[1], "score_range": [scores.min().item(), scores.max().item()],
            "score_mean": scores.mean().item(), "ties": int((scores[0] == scores[1]).sum())}


def check_same_pairs(scores: ScoreTable, pairs: PairSet) -> None:
    """Raise StaleError unless `scores` were computed for just this pair set."""
    if scores.pairs_fingerprint != pairs.fingerprint or scores.pair_ids != pairs.pair_ids:
        raise StaleError(f"{scores.folder} holds the scores of another pair set than {pairs.folder}; "
                         "run `smpo score` for this one")
