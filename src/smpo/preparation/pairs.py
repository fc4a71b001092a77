"""Stage `pairs`: stream a source once, check every row, write the index of the sound pairs and the list of the rest."""

import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from smpo.core.artefacts import Status, begin, finish, read_manifest, reseal, write_atomically
from smpo.core.errors import DataError
from smpo.core.randomness import generator
from smpo.core.seals import Seal
from smpo.data.formats import detect_format, open_source
from smpo.data.images import content_uid
from smpo.data.pair_set import INDEX, INDEX_SCHEMA, SOURCE, STAGE
from smpo.data.records import PairSource, RawPair
from smpo.preparation.options import PairOptions
from smpo.preparation.row_checks import CHOICES, CheckedPair, check_pair

Progress = Callable[[int, int | None], None]
"""(units done, units in all or None) -> nothing; called after each piece of work."""

DROPPED = "dropped.jsonl"
INDEX_ROWS = 8192       # rows gathered as Python objects before they become one arrow table
ROWS_PER_WORKER = 2     # encoded pairs waiting per decoding thread


@dataclass(frozen=True)
class PairReport:
    """What the stage found.

    Attributes:
        folder: the artefact.
        format: format of the source, and what it was recognised by.
        layout: what was understood of it: the layout, its columns and those that are ignored.
        rows: rows read of the source.
        kept: pairs in the pair set.
        dropped: reason code -> number of rows, most frequent first.
        labels: labelled, tied, unlabelled -> number of rows that could be read.
        captions_from_images: prompts that were found in the images' own metadata.
        reused: the artefact was complete already and nothing was done.
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
    found = f"; {report.captions_from_images} prompts are from the images' metadata" * (report.captions_from_images > 0)
    understood = f"read as {report.layout}; rows: {labels or 'none'}{found}"
    return f"{head}{' (already done)' if report.reused else ''}; format {report.format}\n{understood}\n{tail}"


def prepare_pairs(source: str, out: Path, *, options: PairOptions | None = None, workers: int | None = None,
                  progress: Progress | None = None) -> PairReport:
    """The report on the pair set that this writes to `out`; images stay in the source.

    Args:
        source: path or hub id.
        out: folder of the artefact.
        options: what to keep; defaults are Pick-a-Pic's training set.
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
    settings = {**options.model_dump(), "format": format}
    settings.pop("max_dropped_fraction")  # decides whether the source is accepted, not what is kept
    if options.max_rows is None:  # as in pair sets from before there was a choice
        settings.pop("max_rows")
    settings.pop("image_root")  # as the source's own path: images may move
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
    """What a pass over the source gathers."""

    kept: int = 0
    chunks: list[pa.Table] = field(default_factory=list)
    pending: list[dict] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    labels: Counter = field(default_factory=lambda: Counter(labelled=0, tied=0, unlabelled=0))
    captions_from_images: int = 0

    def add(self, pair: CheckedPair) -> None:
        """Count one checked row and keep or list it."""
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
        """Turn the pending rows into an arrow table, which takes a tenth of their memory."""
        self.chunks.append(pa.Table.from_pylist(self.pending, schema=INDEX_SCHEMA))
        self.pending = []

    @property
    def defects(self) -> int:
        """Number of rows dropped because the source is at fault."""
        return sum(count for reason, count in self.reasons.items() if reason not in CHOICES)


def _write(reader: PairSource, out: Path, options: PairOptions, workers: int, progress: Progress | None) -> dict:
    """Check all rows, write the index and the list of dropped rows, and return the results."""
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
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(tally.chunks), sink)
    content = sink.getvalue().to_pybytes()
    write_atomically(out / INDEX, content)
    return {"rows": total, "kept": tally.kept, "dropped": dict(tally.reasons.most_common()),
            "labels": dict(tally.labels), "captions_from_images": tally.captions_from_images,
            "index_sha256": Seal.of(content).sha256}


def chosen_rows(total: int, at_most: int | None) -> Sequence[int]:
    """Positions of the rows to read, ascending: all of `total`, or `at_most` of them at random, the same every time."""
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


def _index_row(pair: CheckedPair) -> dict:
    raw = pair.raw
    assert pair.sizes is not None  # of a pair that is kept
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
