"""Stage `pairs`: read a source once, check every row, write the index of the sound pairs and the list of the others."""

import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from smpo.core.artefacts import Status, begin, finish, read_manifest, reseal, write_atomically
from smpo.core.errors import DataError
from smpo.core.progress_lines import Progress
from smpo.core.randomness import generator
from smpo.data.formats import detect_format, open_source
from smpo.data.images import content_uid
from smpo.data.pair_set import INDEX, INDEX_SCHEMA, SOURCE, STAGE
from smpo.data.parquet_files import write_parquet
from smpo.data.records import PairSource, RawPair
from smpo.preparation.options import PairOptions
from smpo.preparation.row_checks import CHOICES, CheckedPair, check_pair

DROPPED = "dropped.jsonl"
INDEX_ROWS = 8192       # rows that are Python objects before they become an arrow table
ROWS_PER_WORKER = 2     # encoded pairs in memory per decoding thread


@dataclass(frozen=True)
class PairReport:
    """Counts of the stage.

    Attributes:
        folder: of the artefact.
        format: format of the source, and by what it was recognised.
        layout: layout of the source, with the columns that are read and those that are ignored.
        rows: rows read.
        kept: pairs in the pair set.
        dropped: reason code -> number of rows, most frequent first.
        labels: labelled, tied, unlabelled -> number of readable rows.
        captions_from_images: number of prompts from the metadata of the images.
        reused: the artefact was complete before, and nothing was done.
    """

    folder: Path
    format: str
    layout: str
    rows: int
    kept: int
    dropped: dict[str, int]
    labels: dict[str, int]
    captions_from_images: int
    reused: bool


def describe(report: PairReport) -> str:
    """The report in three lines for a terminal."""
    head = f"{report.kept} of {report.rows} pairs kept in {report.folder}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items())
    tail = f"dropped: {reasons}; listed in {report.folder / DROPPED}" if reasons else "dropped: none"
    labels = ", ".join(f"{count} {name}" for name, count in report.labels.items() if count)
    layout = f"read as {report.layout}; rows: {labels or 'none'}"
    if report.captions_from_images:
        layout += f"; {report.captions_from_images} prompts are from the images' metadata"
    return f"{head}{' (already done)' if report.reused else ''}; format {report.format}\n{layout}\n{tail}"


def prepare_pairs(source: str, out: Path, *, options: PairOptions | None = None, workers: int | None = None,
                  progress: Progress | None = None) -> PairReport:
    """Write the pair set of `source` to `out` and return the report; the images stay in the source.

    Args:
        source: path or hub id.
        out: folder of the artefact.
        options: which pairs to keep; the defaults suit Pick-a-Pic's training set.
        workers: decoding threads; None = one per core.
        progress: called with (rows done, rows).

    Raises:
        DataError: the source cannot be read, lacks columns, has too many defective rows, or no sound pair.
        StaleError: `out` was made from another source or with other options.
    """
    options, out = options or PairOptions(), Path(out)
    format, reason = (options.format, "as given") if options.format != "auto" else detect_format(source)
    reader = open_source(source, format=format, **options.how_to_read)
    if options.labelled and not reader.has_labels:
        raise DataError(f"{source} has no human labels (read as {reader.describe()}); add a column label_0, preferred "
                        "or vote_share_0, name it in data.columns, or set data.labelled to false")
    settings = options.model_dump(exclude={"max_dropped_fraction", "image_root"})  # these do not choose pairs
    settings["format"] = format
    status = begin(out, stage=STAGE, settings=settings, inputs={"source": reader.fingerprint()})
    place = str(Path(source).expanduser().resolve()) if Path(source).expanduser().exists() else source
    about = json.dumps({"source": place, "format": format, **options.how_to_read}).encode()
    if status is Status.DONE and (out / SOURCE).read_bytes() != about:  # the images were moved
        write_atomically(out / SOURCE, about)
        reseal(out, [SOURCE])
    if status is not Status.DONE:
        write_atomically(out / SOURCE, about)
        results = _write(reader, out, options, workers or os.cpu_count() or 1, progress)
        finish(out, {**results, "layout": reader.describe()}, files=[INDEX, DROPPED, SOURCE])
    results = read_manifest(out, stage=STAGE)["results"]
    return PairReport(out, f"{format} ({reason})", reused=status is Status.DONE, **{
        name: results[name] for name in ("layout", "rows", "kept", "dropped", "labels", "captions_from_images")})


@dataclass
class _Tally:
    """The results of reading the source, row by row."""

    kept: int = 0
    chunks: list[pa.Table] = field(default_factory=list)
    pending: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    labels: Counter[str] = field(default_factory=lambda: Counter(labelled=0, tied=0, unlabelled=0))
    captions_from_images: int = 0

    def add(self, pair: CheckedPair) -> None:
        """Count a checked row, and put it into the index or the list of dropped rows."""
        raw, reason, detail = pair.raw, pair.reason, pair.detail
        if raw.problem is None:
            self.labels["unlabelled" if math.isnan(raw.human_label) else
                        "tied" if raw.human_label == 0.5 else "labelled"] += 1
            self.captions_from_images += raw.caption_from_image
        if not reason and raw.pair_id in self.seen:
            reason, detail = "duplicate_pair_id", "an earlier row has this pair_id"
        if reason:
            self.reasons[reason] += 1
            line = {"row": raw.row, "place": raw.place, "pair_id": raw.pair_id, "reason": reason, "detail": detail}
            self.dropped.append(json.dumps(line) + "\n")
            return
        self.kept += 1
        self.seen.add(raw.pair_id)
        self.pending.append(_index_row(pair))
        if len(self.pending) >= INDEX_ROWS:
            self.flush()

    def flush(self) -> None:
        """Turn the pending rows into an arrow table, which needs a tenth of their memory."""
        self.chunks.append(pa.Table.from_pylist(self.pending, schema=INDEX_SCHEMA))
        self.pending = []

    @property
    def defects(self) -> int:
        """Number of rows dropped because of a defect of the source."""
        return sum(count for reason, count in self.reasons.items() if reason not in CHOICES)


def _write(
    reader: PairSource, out: Path, options: PairOptions, workers: int, progress: Progress | None
) -> dict[str, Any]:
    """Check all rows, write the index and the list of dropped rows, and return the counts."""
    rows = chosen_rows(len(reader), options.max_rows)
    tally, total = _Tally(), len(rows)
    for done, pair in enumerate(_checked(reader.read(rows), options, workers), start=1):
        tally.add(pair)
        if progress is not None:
            progress(done, total)
        if tally.defects > options.max_dropped_fraction * total:
            break
    write_atomically(out / DROPPED, "".join(tally.dropped))
    _refuse_poor_source(tally, done, total, out, options)
    tally.flush()
    digest = write_parquet(out / INDEX, pa.concat_tables(tally.chunks))
    return {"rows": total, "kept": tally.kept, "dropped": dict(tally.reasons.most_common()),
            "labels": dict(tally.labels), "captions_from_images": tally.captions_from_images,
            "index_sha256": digest}


def chosen_rows(total: int, at_most: int | None) -> Sequence[int]:
    """Ascending positions of the rows to read: all of `total`, or `at_most` random ones, the same at each call."""
    if at_most is None or at_most >= total:
        return range(total)
    order = torch.randperm(total, generator=generator("rows"))
    return order[:at_most].sort().values.tolist()


def _checked(pairs: Iterable[RawPair], options: PairOptions, workers: int) -> Iterator[CheckedPair]:
    """The checked pairs in order; decoding releases the interpreter lock, so threads help."""
    pairs = iter(pairs)
    with ThreadPoolExecutor(workers) as pool:
        while window := list(itertools.islice(pairs, workers * ROWS_PER_WORKER)):
            yield from pool.map(lambda pair: check_pair(pair, options), window)


def _index_row(pair: CheckedPair) -> dict[str, Any]:
    raw = pair.raw
    assert pair.sizes is not None  # it is None only for a dropped pair
    (width_0, height_0), (width_1, height_1) = pair.sizes
    return {"pair_id": raw.pair_id, "row": raw.row, "caption": raw.caption, "label_0": raw.human_label,
            "uid_0": content_uid(raw.image_0), "uid_1": content_uid(raw.image_1),
            "bytes_0": len(raw.image_0), "bytes_1": len(raw.image_1),
            "width_0": width_0, "height_0": height_0, "width_1": width_1, "height_1": height_1,
            "vote_share_0": raw.vote_share_0}


def _refuse_poor_source(tally: _Tally, done: int, total: int, out: Path, options: PairOptions) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in tally.reasons.most_common())
    if tally.defects > options.max_dropped_fraction * total:
        raise DataError(f"{tally.defects} of the first {done} rows are defective ({reasons}), more than "
                        f"max_dropped_fraction {options.max_dropped_fraction} of all {total}; see {out / DROPPED}, "
                        "then repair the source or raise the fraction")
    if tally.kept == 0:
        raise DataError(f"none of the {total} rows can be used ({reasons}); see {out / DROPPED}")
