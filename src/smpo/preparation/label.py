"""Stage `label`: the winner of each pair and its smoothed probability, from scores and human labels."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from smpo.artefacts import Status, begin, fingerprint_of, finish, hash_file, read_manifest, write_atomically
from smpo.data.pair_set import PairSet
from smpo.errors import DataError
from smpo.preparation.score import ScoreTable, check_same_pairs

STAGE = "label"
LABELS_FILE = "labels.parquet"
DROPPED = "dropped.jsonl"
LABEL_SCHEMA = pa.schema([("pair_id", pa.string()), ("winner", pa.int64()), ("p_winner", pa.float32())])
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class Label(Protocol):
    """What the stage needs of a label: see `smpo.labels`."""

    needs_scores: bool
    needs_human: bool
    range_used: Callable[[Tensor, Tensor], tuple[float, float] | None]

    def __call__(self, score_0: Tensor, score_1: Tensor, human_label: Tensor) -> tuple[Tensor, Tensor]:
        """(winner (B,) int64, p_winner (B,) float32)."""
        ...


@dataclass(frozen=True)
class LabelReport:
    """What the stage found.

    Attributes:
        folder: the artefact.
        pairs: pairs in the pair set.
        kept: pairs labelled.
        dropped: reason code -> number of pairs.
        score_range: (min, max) that scaled the scores; None where the label uses none.
        agreement: fraction of the pairs with a human preference and unequal scores in which both name the same winner;
            None where there is no such pair.
        p_winner_quantiles: quantile in [0, 1], as text -> p_winner.
    """

    folder: Path
    pairs: int
    kept: int
    dropped: dict[str, int]
    score_range: tuple[float, float] | None
    agreement: float | None
    p_winner_quantiles: dict[str, float]


@dataclass(frozen=True)
class LabelTable:
    """The labelled pairs, in the order of the pair set; dropped pairs are absent.

    Attributes:
        folder: the artefact.
        fingerprint: what later stages record as their input.
        pairs_fingerprint: of the pair set that was labelled.
        table: columns pair_id, winner, p_winner.
    """

    folder: Path
    fingerprint: str
    pairs_fingerprint: str
    table: pa.Table

    @classmethod
    def open(cls, folder: Path | str) -> "LabelTable":
        """The labels in `folder`.

        Raises:
            DataError: the folder holds no complete labels.
        """
        folder = Path(folder)
        manifest = read_manifest(folder, stage=STAGE)
        return cls(folder, fingerprint_of(folder, stage=STAGE), manifest["inputs"]["pairs"],
                   pq.read_table(folder / LABELS_FILE, schema=LABEL_SCHEMA))

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def pair_ids(self) -> tuple[str, ...]:
        """Name of each labelled pair."""
        return tuple(self.table["pair_id"].to_pylist())

    @cached_property
    def winner(self) -> Tensor:
        """Index of the winning image of each pair, in {0, 1}, shape (N,), int64."""
        return torch.tensor(self.table["winner"].to_numpy())

    @cached_property
    def p_winner(self) -> Tensor:
        """alpha / gamma of each pair, in [0, 1], shape (N,), float32."""
        return torch.tensor(self.table["p_winner"].to_numpy())


def describe(report: LabelReport) -> str:
    """The report in one line for a terminal."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items()) or "none"
    agreement = "" if report.agreement is None else f"; scores agree with people on {report.agreement:.1%}"
    used = report.score_range
    scaled = "" if used is None else f"; score range [{used[0]:.6g}, {used[1]:.6g}]"
    return (f"{report.kept} of {report.pairs} pairs labelled in {report.folder}; dropped: {dropped}{scaled}"
            f"; median p_winner {report.p_winner_quantiles['0.5']:.4f}{agreement}")


def label_pairs(pairs: PairSet, scores: ScoreTable | None, label: Label, out: Path, *,
                drop_score_ties: bool = True) -> LabelReport:
    """The report on the labels that this writes to `out`.

    Dropped and listed are pairs with equal scores (where the label uses scores) and pairs without a human preference
    (where it uses people's). The score range is measured over the pairs that are kept.

    Args:
        pairs: the pair set.
        scores: its score table; None where the label needs none.
        label: see `smpo.labels`.
        out: folder of the artefact.
        drop_score_ties: drop pairs with score_0 == score_1 instead of giving them p_winner = 1/2.

    Raises:
        DataError: the label needs scores and there are none, or no pair is left.
        StaleError: the scores belong to another pair set, or `out` was made from other inputs.
    """
    out = Path(out)
    if label.needs_scores and scores is None:
        raise DataError(f"label {type(label).__name__} needs a score table, got none; run `smpo score` first")
    inputs = {"pairs": pairs.fingerprint}
    if scores is not None:
        check_same_pairs(scores, pairs)
        inputs["scores"] = scores.fingerprint
    settings = {"label": {"class": type(label).__name__, **asdict(label)}, "drop_score_ties": drop_score_ties}
    if begin(out, stage=STAGE, settings=settings, inputs=inputs) is not Status.DONE:
        finish(out, _write(pairs, scores, label, out, drop_score_ties))
    results = read_manifest(out, stage=STAGE)["results"]
    used = results["score_range"]
    return LabelReport(out, len(pairs), results["kept"], results["dropped"], None if used is None else tuple(used),
                       results["agreement"], results["p_winner_quantiles"])


def _write(pairs: PairSet, scores: ScoreTable | None, label: Label, out: Path, drop_score_ties: bool) -> dict[str, Any]:
    missing = torch.full((len(pairs),), float("nan"), dtype=torch.float64)
    score_0, score_1 = (missing, missing) if scores is None else (scores.score_0.double(), scores.score_1.double())
    reasons = _reasons_to_drop(pairs.human_labels, score_0 == score_1, label, drop_score_ties)
    kept = torch.tensor([not reason for reason in reasons])
    dropped = Counter(reason for reason in reasons if reason)
    if not kept.any():
        raise DataError(f"no pair of {pairs.folder} can be labelled: {_count(dropped)}; use another label or scorer")
    winner, p_winner = label(score_0[kept], score_1[kept], pairs.human_labels[kept])
    ids = [pair_id for pair_id, reason in zip(pairs.pair_ids, reasons, strict=True) if not reason]
    sink = pa.BufferOutputStream()
    columns = {"pair_id": ids, "winner": winner.tolist(), "p_winner": p_winner.tolist()}
    pq.write_table(pa.table(columns, schema=LABEL_SCHEMA), sink)
    write_atomically(out / LABELS_FILE, sink.getvalue().to_pybytes())
    write_atomically(out / DROPPED, "".join(
        json.dumps({"pair_id": pair_id, "reason": reason}) + "\n"
        for pair_id, reason in zip(pairs.pair_ids, reasons, strict=True) if reason))
    used = label.range_used(score_0[kept], score_1[kept])
    return {
        "kept": len(ids),
        "dropped": dict(dropped.most_common()),
        "score_range": None if used is None else list(used),
        "scorer": None if scores is None else scores.identity,
        "agreement": _agreement(score_0[kept], score_1[kept], pairs.human_labels[kept]),
        "p_winner_quantiles": _quantiles(p_winner),
        "labels_sha256": hash_file(out / LABELS_FILE),
    }


def _reasons_to_drop(human_labels: Tensor, tied: Tensor, label: Label, drop_score_ties: bool) -> list[str]:
    """The reason code of each pair, or an empty string."""
    reasons = []
    for human, tie in zip(human_labels.tolist(), tied.tolist(), strict=True):
        if label.needs_human and human not in (0.0, 1.0):
            reasons.append("human_tie" if human == 0.5 else "no_human_label")
        else:
            reasons.append("score_tie" if tie and label.needs_scores and drop_score_ties else "")
    return reasons


def _agreement(score_0: Tensor, score_1: Tensor, human_labels: Tensor) -> float | None:
    decided = ((human_labels == 0) | (human_labels == 1)) & ((score_0 < score_1) | (score_0 > score_1))
    if not decided.any():
        return None
    return ((score_0 > score_1) == (human_labels == 1))[decided].double().mean().item()


def _quantiles(values: Tensor) -> dict[str, float]:
    """Order statistics (nearest rank below); torch.quantile refuses more than 16 million values."""
    ordered = values.double().sort().values
    return {str(q): ordered[int(q * (len(ordered) - 1))].item() for q in QUANTILES}


def _count(dropped: Counter) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
