"""Stage `score`: scores both images of each pair with reward models, and writes a table per scorer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import Tensor

from smpo.core.artefacts import Status, begin, finish, read_manifest
from smpo.core.errors import ConfigError, StaleError
from smpo.core.names import check_names
from smpo.core.processes import main_first, this_process, wait_for_all
from smpo.data.images import decode_image
from smpo.data.pair_set import PairSet
from smpo.data.parquet_files import write_parquet
from smpo.preparation.pair_tables import PairTable
from smpo.rewards.blocks import Progress, ScoreBlocks, fill
from smpo.rewards.options import ScoringOptions
from smpo.rewards.scorer import Scorer
from smpo.rewards.scoring import Request

STAGE = "score"
TABLE = "scores.parquet"
BLOCKS = "blocks"  # folder of the finished blocks until the table is complete
SCORE_SCHEMA = pa.schema([("pair_id", pa.string()), ("score_0", pa.float32()), ("score_1", pa.float32())])


@dataclass(frozen=True)
class ScoreReport:
    """Counts of the stage.

    Attributes:
        folder: of the tables.
        pairs: number of pairs scored.
        computed: number of blocks that this call computed, in all its processes; the other blocks were there.
        score_ranges: scorer -> (min, max) over all scores, in the scorer's units.
    """

    folder: Path
    pairs: int
    computed: int
    score_ranges: dict[str, tuple[float, float]]


class ScoreTable(PairTable):
    """One scorer's scores of a pair set; its folder is a subfolder of the stage's, with the name of the scorer."""

    stage, file, schema = STAGE, TABLE, SCORE_SCHEMA

    @property
    def identity(self) -> Mapping[str, Any]:
        """Scorer, weights, precision and preprocessing that gave the scores."""
        return self.artefact.manifest["settings"]["scorer"]

    @cached_property
    def score_0(self) -> Tensor:
        """Score of image 0 of each pair, shape (N,), float32."""
        return self.column("score_0")

    @cached_property
    def score_1(self) -> Tensor:
        """Score of image 1 of each pair, shape (N,), float32."""
        return self.column("score_1")


def describe(report: ScoreReport) -> str:
    """The report in one line for a terminal."""
    ranges = ", ".join(f"{name} in [{low:.6g}, {high:.6g}]" for name, (low, high) in report.score_ranges.items())
    done = f"{report.computed} blocks computed" if report.computed else "already done"
    return f"{report.pairs} pairs scored by {ranges}; in {report.folder} ({done})"


def score_pairs(pairs: PairSet, scorers: Mapping[str, Scorer], out: Path, *, options: ScoringOptions | None = None,
                progress: Progress | None = None) -> ScoreReport:
    """Complete the score tables `out`/name, one per scorer, and return the report.

    Scores from an interrupted call, or from a call with fewer scorers, are kept. The missing ones are computed in one
    pass over the images, shared by the processes that were started together (see `fill`). Within `block_size` pairs an
    image that occurs several times with the same prompt is decoded and scored once.

    Args:
        pairs: the pair set.
        scorers: name of the table -> scorer.
        out: folder of the tables.
        options: batches, workers, blocks.
        progress: see `Progress`.

    Raises:
        ConfigError: no scorers, or a name that cannot be a folder's.
        DataError: an image cannot be read; a scorer returned a wrong shape or a score that is not finite.
        StaleError: a table was made from other pairs or with another scorer.
        ProcessError: another process ended early.
    """
    options, out = options or ScoringOptions(), Path(out)
    _check_names(scorers)
    blocks = {name: ScoreBlocks(out / name / BLOCKS, pairs.pair_ids, options.block_size) for name in scorers}
    unfinished = {name: blocks[name] for name in _begin(pairs, scorers, out)}
    computed = fill(unfinished, scorers, lambda start, stop: _requests(pairs, start, stop), decode=decode_image,
                    options=options, progress=progress)
    if this_process().is_main:
        for name in unfinished:
            _finish(out / name, pairs, blocks[name])
        for finished in blocks.values():  # also of tables that an earlier call, killed before this line, completed
            finished.remove()
    wait_for_all("finish the score tables")
    ranges = {name: tuple(read_manifest(out / name, stage=STAGE)["results"]["score_range"]) for name in scorers}
    return ScoreReport(out, len(pairs), computed, ranges)


def _check_names(scorers: Mapping[str, Scorer]) -> None:
    if not scorers:
        raise ConfigError("no scorers were given; name at least one")
    check_names(scorers, what="scorer")


def _begin(pairs: PairSet, scorers: Mapping[str, Scorer], out: Path) -> list[str]:
    """The names of the tables that are not complete."""

    def open_tables() -> list[str]:
        status = {
            name: begin(out / name, stage=STAGE, settings={"scorer": scorer.identity()},
                        inputs={"pairs": pairs.fingerprint})
            for name, scorer in scorers.items()
        }
        return [name for name in scorers if status[name] is not Status.DONE]

    return main_first("open the score tables", open_tables)


def _requests(pairs: PairSet, start: int, stop: int) -> Iterator[Sequence[Request]]:
    """Both images of each of the pairs [start, stop)."""
    for uids, pair in zip(pairs.uids[start:stop], pairs.iter_images(start, stop), strict=True):
        yield [Request(f"image {side} of pair '{pair.pair_id}'", uid, pair.caption, data)
               for side, (uid, data) in enumerate(zip(uids, (pair.image_0, pair.image_1), strict=True))]


def _finish(folder: Path, pairs: PairSet, blocks: ScoreBlocks) -> None:
    """Join the blocks into the table and mark it complete."""
    scores, _ = blocks.joined()
    columns = {"pair_id": pairs.index["pair_id"], "score_0": scores[:, 0].numpy(), "score_1": scores[:, 1].numpy()}
    digest = write_parquet(folder / TABLE, pa.table(columns, schema=SCORE_SCHEMA))
    scores = scores.double()
    finish(folder, {"pairs": len(scores), "score_range": [scores.min().item(), scores.max().item()],
                    "score_mean": scores.mean().item(), "ties": int((scores[:, 0] == scores[:, 1]).sum()),
                    "sha256": digest}, files=[TABLE])


def check_same_pairs(scores: ScoreTable, pairs: PairSet) -> None:
    """Raise StaleError unless `scores` are the scores of `pairs`."""
    if scores.pairs_fingerprint != pairs.fingerprint or scores.pair_ids != pairs.pair_ids:
        raise StaleError(f"{scores.folder} holds the scores of another pair set than {pairs.folder}; "
                         "run `smpo score` for this one")
